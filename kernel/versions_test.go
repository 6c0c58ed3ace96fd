package kernel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// The version after this one, as this test imagines it: CREDIT counts in units of 16
// bytes, rounded down, and HELLO has a setting more.
const (
	nextVersion = native.Version + 1
	creditUnit  = 16
)

var draftSetting = []byte{99, 1, 16}

// versioned is the native protocol in a range of versions.
type versioned struct {
	native.Protocol
	lowest, highest uint64
	used            *atomic.Uint64 // the version of the last connection
}

// Handshake implements frame.Protocol.
func (v versioned) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	g.Own.MinVersion, g.Own.MaxVersion = v.lowest, v.highest
	if v.highest == nextVersion {
		rw = &drafted{rw}
	}
	sess, err := v.Protocol.Handshake(ctx, rw, g)
	if err != nil {
		return nil, err
	}
	s := sess.(*native.Session)
	v.used.Store(s.Version())
	if s.Version() == nextVersion {
		return &nextSession{s}, nil
	}
	return s, nil
}

// drafted adds a setting to the HELLO that is written.
type drafted struct{ io.ReadWriter }

func (d *drafted) Write(b []byte) (int, error) {
	const frameAt, typeHello = 16, 13
	n := len(b)
	if bytes.HasPrefix(b, []byte(native.Magic)) && b[frameAt+3] == typeHello {
		p := join(b[frameAt+8:], draftSetting)
		b = greeting(head(len(p), typeHello, 0), p)
	}
	_, err := d.ReadWriter.Write(b)
	return n, err
}

// nextSession is a session of the next version.
type nextSession struct{ *native.Session }

// Control implements frame.Session.
func (s *nextSession) Control(o *frame.Out, f *frame.Frame) {
	if f.Kind == frame.Credit {
		inUnits := *f
		inUnits.Value /= creditUnit
		f = &inUnits
	}
	s.Session.Control(o, f)
}

// Next implements frame.Session.
func (s *nextSession) Next(p []byte, f *frame.Frame) (int, error) {
	n, err := s.Session.Next(p, f)
	if err == nil && f.Kind == frame.Credit {
		f.Value *= creditUnit
	}
	return n, err
}

// A pair without a common version fails at once, on both sides with both ranges.
func TestNoCommonVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Uint64
		log := &journal{}
		srv, err := kernel.NewServer(&kernel.ServerOptions{
			Protocols: []frame.Protocol{versioned{lowest: 2, highest: 2, used: &used}}, Logger: log.Logger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		ln, served := kerneltest.Listen(), make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		_, err = kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
		const why = "VERSION: no common version: the client speaks 1 to 1, the server 2 to 2"
		var ce *status.ConnError
		if !errors.As(err, &ce) || ce.Code != status.Version || !ce.Remote || !strings.Contains(err.Error(), why) {
			t.Errorf("the client is told: %v", err)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), why) {
			t.Errorf("the server says: %s", log)
		}
		_ = srv.Close()
		<-served
	})
}

// rollingLimits are small, so that much CREDIT is sent.
func rollingLimits() kernel.Limits { return kernel.Limits{ConnWindow: 32 << 10, MaxStreams: 16} }

// A rolled server is one that is restarted with another version.
type rolledServer struct {
	t       *testing.T
	highest uint64
	used    atomic.Uint64

	mu     sync.Mutex
	ln     *kerneltest.Listener
	srv    *kernel.Server
	served chan error
	seen   map[uint64]int // how often each number came
}

func (r *rolledServer) start(highest uint64) {
	r.t.Helper()
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{versioned{lowest: native.Version, highest: highest, used: &r.used}}, Limits: rollingLimits(),
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			r.count(binary.LittleEndian.Uint64(m.Bytes()))
			if err := s.Send(ctx, m); err != nil {
				return err
			}
		}
		return nil
	})
	ln, served := kerneltest.Listen(), make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	r.mu.Lock()
	r.highest, r.ln, r.srv, r.served = highest, ln, srv, served
	r.mu.Unlock()
}

// restart drains the server and starts it anew. Clients are served no more and not yet
// in between.
func (r *rolledServer) restart(highest uint64) {
	r.t.Helper()
	r.stop()
	time.Sleep(5 * time.Millisecond)
	r.start(highest)
}

func (r *rolledServer) stop() {
	if err := r.srv.Shutdown(context.Background()); err != nil {
		r.t.Error(err)
	}
	<-r.served
}

func (r *rolledServer) count(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[n]++
}

func (r *rolledServer) handled(n uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[n]
}

func (r *rolledServer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r.mu.Lock()
	ln := r.ln
	r.mu.Unlock()
	return ln.Dial(ctx, network, addr)
}

// A rolledClient is one that is restarted with another version, and talks to one
// server all the time.
type rolledClient struct {
	t       *testing.T
	server  *rolledServer
	numbers *atomic.Uint64
	highest uint64
	used    atomic.Uint64
	streams atomic.Int64 // that ended in order
	again   atomic.Int64 // that were not processed, and were tried again

	client *kernel.Client
	halt   chan struct{}
	wg     sync.WaitGroup
	sent   []uint64 // in streams that ended in order
}

func (r *rolledClient) start(highest uint64) {
	r.highest, r.halt = highest, make(chan struct{})
	client, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{
		Protocols: []frame.Protocol{versioned{lowest: native.Version, highest: highest, used: &r.used}}, Dial: r.server.dial, Limits: rollingLimits(),
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.client = client
	r.wg.Go(func() {
		for {
			select {
			case <-r.halt:
				return
			default:
				r.talk()
			}
		}
	})
}

func (r *rolledClient) restart(highest uint64) {
	r.stop()
	r.start(highest)
}

func (r *rolledClient) stop() {
	close(r.halt)
	r.wg.Wait()
	_ = r.client.Close()
}

// talk has one stream of messages echoed. What was not processed is tried again;
// anything else that fails is a loss.
func (r *rolledClient) talk() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	numbers, err := r.echo(ctx)
	var se *status.StreamError
	var ce *status.ConnError
	switch {
	case err == nil:
		r.streams.Add(1)
		r.sent = append(r.sent, numbers...)
		return
	case errors.As(err, &se) && se.NotProcessed:
	case errors.As(err, &ce) && (ce.Op == "dial" || ce.Op == "handshake" || errors.Is(err, kernel.ErrGoingAway)) && numbers == nil:
	default:
		r.t.Errorf("a client of version %d, a server of %d: %v", r.highest, r.server.highest, err)
	}
	r.again.Add(1)
	time.Sleep(2 * time.Millisecond)
}

// echo sends 30 messages of 3,000 bytes and reads them back. It returns their numbers,
// nil if there was no stream.
func (r *rolledClient) echo(ctx context.Context) (numbers []uint64, err error) {
	s, err := r.client.Open(ctx, "echo", nil)
	if err != nil {
		return nil, err
	}
	for range 30 {
		numbers = append(numbers, r.numbers.Add(1))
	}
	sent := make(chan error, 1)
	go func() {
		for _, n := range numbers {
			m := sized(3000, 'x')
			binary.LittleEndian.PutUint64(m.Bytes(), n)
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	for _, n := range numbers {
		m, err := s.Receive(ctx)
		if err != nil {
			s.Abort(status.Cancelled, "")
			<-sent
			return numbers, err
		}
		got := binary.LittleEndian.Uint64(m.Bytes())
		m.Release()
		time.Sleep(500 * time.Microsecond) // of the bubble, where else no time would pass
		if got != n {
			return numbers, fmt.Errorf("message %d came back as %d", n, got)
		}
	}
	if err := <-sent; err != nil {
		return numbers, err
	}
	if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
		return numbers, fmt.Errorf("after the last message: %w", err)
	}
	return numbers, nil
}

// Two servers and two clients of each are restarted one after the other with the next
// version, and two of them back: every pair works all the time with the highest version
// that both speak, and nothing is lost or done twice.
func TestTwoVersionsInARollingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var numbers atomic.Uint64
		var servers []*rolledServer
		var clients []*rolledClient
		for range 2 {
			s := &rolledServer{t: t, seen: map[uint64]int{}}
			s.start(native.Version)
			servers = append(servers, s)
			for range 2 {
				c := &rolledClient{t: t, server: s, numbers: &numbers}
				c.start(native.Version)
				clients = append(clients, c)
			}
		}
		work := func(step string) {
			t.Helper()
			before := make([]int64, len(clients))
			for i, c := range clients {
				before[i] = c.streams.Load()
			}
			time.Sleep(100 * time.Millisecond)
			for i, c := range clients {
				want := min(c.highest, c.server.highest)
				if got := c.used.Load(); got != want {
					t.Errorf("%s: client %d (%d) and its server (%d) use version %d, want %d", step, i, c.highest, c.server.highest, got, want)
				}
				if n := c.streams.Load() - before[i]; n < 3 {
					t.Errorf("%s: client %d (%d) and its server (%d) completed %d streams", step, i, c.highest, c.server.highest, n)
				}
			}
		}
		work("at first")
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"server 0 is new", func() { servers[0].restart(nextVersion) }},
			{"client 0 is new", func() { clients[0].restart(nextVersion) }},
			{"client 2 is new", func() { clients[2].restart(nextVersion) }},
			{"server 1 is new", func() { servers[1].restart(nextVersion) }},
			{"client 1 is new", func() { clients[1].restart(nextVersion) }},
			{"client 3 is new", func() { clients[3].restart(nextVersion) }},
			{"server 0 is old again", func() { servers[0].restart(native.Version) }},
			{"client 3 is old again", func() { clients[3].restart(native.Version) }},
		} {
			step.do()
			work(step.name)
		}
		again := int64(0)
		for _, c := range clients {
			c.stop()
			again += c.again.Load()
			for _, n := range c.sent {
				if got := c.server.handled(n); got != 1 {
					t.Errorf("message %d was handled %d times", n, got)
				}
			}
		}
		for _, s := range servers {
			s.stop()
		}
		t.Logf("%d messages, %d streams were tried again", numbers.Load(), again)
	})
}
