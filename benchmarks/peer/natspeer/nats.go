// Package natspeer drives NATS: a server embedded in the serving process, a
// service beside it, and a client. NATS has neither streams nor flow control
// between clients, so a stream here is a pair of subjects with a window of
// credits over them, as an application would build it.
package natspeer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

const (
	startWait   = 5 * time.Second
	openSubject = "bench.open."

	// A stream may have window bytes in flight and one message more; each
	// counts minCost at least.
	window  = 4 << 20
	minCost = 4 << 10
	backlog = window/minCost + 8
)

// The first byte of each NATS message.
const (
	kindData   = 'd'
	kindEnd    = 'e'
	kindCredit = 'c' // how much the receiver has taken in all
	kindAccept = 'a' // the reply subject is where to send
)

type natsPeer struct{}

// New returns NATS.
func New() peer.Peer { return natsPeer{} }

func (natsPeer) Name() string { return "nats" }

// link is a connection to the NATS server.
type link struct {
	nc   *nats.Conn
	done chan struct{} // closed when nc is
}

func dial(addr string) (*link, error) {
	l := &link{done: make(chan struct{})}
	var err error
	l.nc, err = nats.Connect("nats://"+addr, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(l.done) }))
	return l, err
}

func (l *link) close() error {
	l.nc.Close()
	select {
	case <-l.done:
		return nil
	case <-time.After(startWait):
		return errors.New("nats: the connection does not close")
	}
}

type stream struct {
	*link
	sub *nats.Subscription
	to  string // where we send

	in    chan *nats.Msg // NATS's goroutine -> Recv
	ended bool
	taken int64 // cost of what Recv returned
	acked int64

	out     []byte
	sent    int64
	granted atomic.Int64
	wake    chan struct{} // NATS's goroutine -> Send: granted grew
}

// newStream subscribes to a subject of its own.
func newStream(l *link) (*stream, error) {
	s := &stream{link: l, in: make(chan *nats.Msg, backlog), wake: make(chan struct{}, 1)}
	var err error
	s.sub, err = l.nc.Subscribe(nats.NewInbox(), s.receive)
	return s, err
}

// receive runs on NATS's goroutine for the subject. The window keeps in from
// filling up.
func (s *stream) receive(m *nats.Msg) {
	if len(m.Data) == 9 && m.Data[0] == kindCredit {
		s.granted.Store(int64(binary.LittleEndian.Uint64(m.Data[1:])))
		select {
		case s.wake <- struct{}{}:
		default:
		}
		return
	}
	s.in <- m
}

func (s *stream) next() (*nats.Msg, error) {
	select {
	case m := <-s.in:
		if len(m.Data) == 0 {
			return nil, errors.New("nats: message without a kind")
		}
		return m, nil
	case <-s.done:
		return nil, nats.ErrConnectionClosed
	}
}

func (s *stream) Buf(n int) []byte {
	if cap(s.out) < n+1 {
		s.out = make([]byte, n+1)
	}
	s.out = s.out[:n+1]
	return s.out[1:]
}

func cost(n int) int64 { return int64(max(n, minCost)) }

func (s *stream) Send(p []byte) error {
	for s.sent-s.granted.Load() >= window {
		select {
		case <-s.wake:
		case <-s.done:
			return nats.ErrConnectionClosed
		}
	}
	s.sent += cost(len(p))
	s.out[0] = kindData
	return s.nc.Publish(s.to, s.out[:1+len(p)])
}

// Flush does nothing: the client flushes by itself, and at once.
func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	m, err := s.next()
	if err != nil {
		return nil, err
	}
	switch m.Data[0] {
	case kindEnd:
		s.ended = true
		return nil, io.EOF
	case kindData:
		s.taken += cost(len(m.Data) - 1)
		return m.Data[1:], s.credit()
	}
	return nil, fmt.Errorf("nats: message of kind %q", m.Data[0])
}

// credit tells the sender what was taken, each half window.
func (s *stream) credit() error {
	if s.taken-s.acked < window/2 {
		return nil
	}
	s.acked = s.taken
	return s.nc.Publish(s.to, binary.LittleEndian.AppendUint64([]byte{kindCredit}, uint64(s.taken)))
}

func (s *stream) CloseSend() error { return s.nc.Publish(s.to, []byte{kindEnd}) }

func (s *stream) Close() error { return s.sub.Unsubscribe() }

type server struct {
	ns   *natsserver.Server
	link *link
	o    peer.Options
	wg   sync.WaitGroup
}

func (natsPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	host, port, err := split(addr)
	if err != nil {
		return nil, err
	}
	ns, err := natsserver.NewServer(&natsserver.Options{
		Host: host, Port: port, NoLog: true, NoSigs: true, MaxPayload: int32(max(o.MaxMessage, 4<<20) + 1),
		MaxConn: o.Conns + 64,
	})
	if err != nil {
		return nil, err
	}
	ns.Start()
	if !ns.ReadyForConnections(startWait) {
		return nil, errors.New("nats: the server does not start")
	}
	s := &server{ns: ns, o: o}
	if s.link, err = dial(s.Addr()); err != nil {
		return nil, err
	}
	if _, err := s.link.nc.Subscribe(openSubject+"*", s.accept); err != nil {
		return nil, err
	}
	return s, s.link.nc.Flush()
}

// split parses an address; NATS's word for any port is -1.
func split(addr string) (host string, port int, err error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return "", 0, err
	}
	if a.Port == 0 {
		a.Port = natsserver.RANDOM_PORT
	}
	return a.IP.String(), a.Port, nil
}

// accept runs on NATS's goroutine for openSubject.
func (s *server) accept(m *nats.Msg) {
	st, err := newStream(s.link)
	if err != nil {
		return // the connection is closed
	}
	st.to = m.Reply
	if s.link.nc.PublishRequest(st.to, st.sub.Subject, []byte{kindAccept}) != nil {
		return
	}
	mode := peer.Mode(m.Subject[len(openSubject)])
	s.wg.Go(func() { // ends with the stream, or the server's link
		_ = s.o.Handle(mode, st)
		_ = st.Close()
	})
}

func (s *server) Addr() string { return s.ns.Addr().String() }

func (s *server) Close() error {
	err := s.link.close()
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	s.wg.Wait()
	return err
}

func (natsPeer) Dial(_ context.Context, addr string, _ peer.Options) (peer.Conn, error) {
	l, err := dial(addr)
	if err != nil {
		return nil, err
	}
	return conn{l}, nil
}

type conn struct{ *link }

// Open asks the service for a subject to send to.
func (c conn) Open(_ context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := newStream(c.link)
	if err != nil {
		return nil, err
	}
	if err := c.nc.PublishRequest(openSubject+string(m), s.sub.Subject, nil); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	answer, err := s.next()
	if err != nil {
		return nil, err
	}
	if answer.Data[0] != kindAccept {
		return nil, errors.Join(fmt.Errorf("nats: answer of kind %q to an open", answer.Data[0]), s.Close())
	}
	s.to = answer.Reply
	return s, nil
}

func (c conn) Close() error { return c.close() }
