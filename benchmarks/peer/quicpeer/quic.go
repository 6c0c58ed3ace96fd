// Package quicpeer drives quic-go. A user frames messages on its streams: plain
// with one Write per message, and "+b" with a buffer that is flushed before a
// receive that has to wait.
package quicpeer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/framed"
)

const proto = "bench"

type quicPeer struct {
	name  string
	batch bool
}

// New returns quic-go.
func New(batch bool) peer.Peer {
	if batch {
		return quicPeer{"quic+b", true}
	}
	return quicPeer{"quic", false}
}

func (q quicPeer) Name() string { return q.name }

// Network says that a TCP relay can not be used.
func (q quicPeer) Network() string { return "udp" }

func config(o peer.Options) *quic.Config {
	return &quic.Config{MaxIncomingStreams: int64(o.Streams), KeepAlivePeriod: 10 * time.Second}
}

// certificate makes one that signs itself: QUIC has no plain text.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

type server struct {
	ln     *quic.Listener
	o      peer.Options
	batch  bool
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[*quic.Conn]struct{}
}

func (q quicPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	cert, err := certificate()
	if err != nil {
		return nil, err
	}
	ln, err := quic.ListenAddr(addr, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{proto}}, config(o))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.Duplex = false
	s := &server{ln: ln, o: o, batch: q.batch, cancel: cancel, conns: make(map[*quic.Conn]struct{})}
	s.wg.Go(func() { s.accept(ctx) }) // ends with the listener; Close waits
	return s, nil
}

func (s *server) accept(ctx context.Context) {
	for {
		c, err := s.ln.Accept(ctx)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() { s.serve(ctx, c) }) // ends with its connection
	}
}

func (s *server) serve(ctx context.Context, c *quic.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	for {
		qs, err := c.AcceptStream(ctx)
		if err != nil {
			return
		}
		s.wg.Go(func() { // ends with its connection at the latest
			st := newStream(qs, s.batch, s.o)
			_ = st.Serve(s.o)
			_ = st.Close()
		})
	}
}

func (s *server) Addr() string { return s.ln.Addr().String() }

func (s *server) Close() error {
	s.cancel()
	err := s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		err = errors.Join(err, c.CloseWithError(0, ""))
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// newStream: Close of a QUIC stream ends our half; the other is cancelled in
// case that its end was not read.
func newStream(qs *quic.Stream, batch bool, o peer.Options) *framed.Stream {
	st := framed.New(qs, batch, framed.Buffer, o)
	st.HalfClose(qs.Close, func() error {
		qs.CancelRead(0)
		return qs.Close()
	})
	return st
}

func (q quicPeer) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := quic.DialAddr(ctx, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}, config(o))
	if err != nil {
		return nil, err
	}
	return &conn{c, q.batch, o}, nil
}

type conn struct {
	qc    *quic.Conn
	batch bool
	o     peer.Options
}

func (c *conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	qs, err := c.qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	s := newStream(qs, c.batch, c.o)
	return s, s.Open(m)
}

func (c *conn) Close() error { return c.qc.CloseWithError(0, "") }
