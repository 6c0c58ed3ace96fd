package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// A Server serves streams on the connections that it accepts.
type Server struct {
	endpoint
	opts ServerOptions

	connMu     sync.Mutex
	conns      map[*Conn]struct{}
	total      int // connections, those in their handshake among them
	perAddr    map[string]int
	listeners  map[net.Listener]struct{}
	handshakes map[net.Conn]struct{}
	closing    bool
	cut        bool          // by Close, or a drain that ran out of time
	empty      chan struct{} // closed when closing and the last connection is gone
	budget     budget
	watching   sync.Once
	life       context.Context // ends with Close
	end        context.CancelFunc
	slots      chan struct{} // one for each handshake at once

	counters
}

// counters is what Stats reads.
type counters struct {
	accepted, refused, failed, strangers, evicted atomic.Uint64
}

// Stats is what a server has counted since it began.
type Stats struct {
	Conns     int    // open now
	Accepted  uint64 // connections that completed their handshake
	Refused   uint64 // connections beyond a limit
	Failed    uint64 // handshakes that failed
	Strangers uint64 // of them, connections that spoke none of our protocols
	Panics    uint64 // handlers and hooks that panicked
	Evicted   uint64 // streams, and connections, ended for want of memory
}

// NewServer returns a server that is not serving yet. Nil opts are the defaults.
// It fails with ErrLimits if an option is out of range.
func NewServer(opts *ServerOptions) (*Server, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, conns: map[*Conn]struct{}{}, perAddr: map[string]int{},
		listeners: map[net.Listener]struct{}{}, handshakes: map[net.Conn]struct{}{},
		empty: make(chan struct{}), slots: make(chan struct{}, min(o.Limits.MaxHandshakes, 1<<16)),
	}
	s.life, s.end = context.WithCancel(context.Background())
	named := opts != nil && opts.Limits.MaxConns != 0
	s.opts.Limits.MaxConns = min(o.Limits.MaxConns, descriptorBound(o.Limits.MaxConns, named))
	s.endpoint.limits, s.endpoint.stream, s.endpoint.protocols = o.Limits, o.Stream, o.Protocols
	s.endpoint.checksum, s.endpoint.logger = !o.NoChecksum, o.Logger
	s.endpoint.authorize, s.endpoint.onConn = o.Authorize, o.OnConn
	s.endpoint.onGoAway = func(*Conn) {}
	return s, nil
}

// Handle registers h for streams of method. Each runs in a goroutine of its own.
// The stream is accepted when the handler first uses it, or returns. Returning
// nil ends both halves in order; an error ends the sending half after what was
// sent, with the code of a HandlerError or CodeUnknown. ctx is the stream's
// Context. It may be called at any time; the last registration counts. It panics if
// h is nil.
func (s *Server) Handle(method string, h func(ctx context.Context, s *Stream) error) {
	s.handle(method, entry{stream: h})
}

// HandleOffer registers h for opens of method, to accept or reject. ctx is the
// first stream's Context. The streams that it accepts live on when it returns nil,
// and their Contexts with them; an error ends them with its code.
// An offer that was not answered by then is rejected. It panics if h is nil.
func (s *Server) HandleOffer(method string, h func(ctx context.Context, o *Offer) error) {
	s.handle(method, entry{offer: h})
}

// Offers returns the opens that no handler is registered for, to be accepted or
// rejected by whoever receives them; no goroutine is made for one. It holds
// Limits.MaxOffers; beyond it opens are refused with CodeResourceExhausted.
// Before the first call such opens are refused with CodeUnimplemented. The
// channel is never closed.
func (s *Server) Offers() <-chan *Offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offers == nil {
		s.offers = make(chan *Offer, s.limits.MaxOffers)
	}
	return s.offers
}

// Stats returns the server's counts.
func (s *Server) Stats() Stats {
	s.connMu.Lock()
	n := len(s.conns)
	s.connMu.Unlock()
	return Stats{
		Conns: n, Accepted: s.accepted.Load(), Refused: s.refused.Load(),
		Failed: s.failed.Load(), Strangers: s.strangers.Load(), Panics: s.panics.Load(),
		Evicted: s.evicted.Load(),
	}
}

// Conns returns the connections that there are.
func (s *Server) Conns() []*Conn {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	return s.connsLocked()
}

func (s *Server) connsLocked() (cs []*Conn) {
	for c := range s.conns {
		cs = append(cs, c)
	}
	return cs
}

// ListenAndServe listens on the TCP address addr and serves until ctx ends or
// the server is shut down: see Serve.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return &ConnError{Addr: stringAddr(addr), Op: "listen", Err: err}
	}
	return s.Serve(ctx, ln)
}

type stringAddr string

func (a stringAddr) Network() string { return "tcp" }

func (a stringAddr) String() string { return string(a) }

// Serve accepts connections from ln, which belongs to the server from now on,
// until ctx ends (then it closes the server) or Shutdown or Close is called, and
// returns ErrServerClosed. A listener that fails for good, or that the program has
// closed, is returned as a ConnError; running out of descriptors or memory is not
// that: Serve tries again. The connections that came by it live on.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ls, err := s.lease(ln)
	if err != nil {
		_ = ln.Close()
		return err
	}
	if !s.track(ln) {
		ls.end()
		_ = ln.Close()
		return ErrServerClosed
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	var pause backoffAccept
	for {
		for s.pressure.Load() >= stopAccepting && !s.isClosing() {
			pause.sleep(ctx)
		}
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.admit(ls, nc)
			continue
		}
		if s.isClosing() {
			<-s.empty
			ls.end()
			return ErrServerClosed
		}
		if !temporary(err) {
			s.untrack(ln)
			go ls.end() // the loops must not stop under the connections that there are
			return &ConnError{Addr: ln.Addr(), Op: "accept", Err: err}
		}
		pause.sleep(ctx)
	}
}

// A lease is the use of the event loops by a listener's connections.
type lease struct {
	engine *conn.Engine // nil: none
	users  sync.WaitGroup
}

func (s *Server) lease(ln net.Listener) (ls *lease, err error) {
	ls = &lease{}
	switch ln.(type) {
	case *net.TCPListener, *net.UnixListener:
		if s.opts.TLS == nil {
			ls.engine, err = conn.Acquire()
		}
	}
	return ls, err
}

// end waits for the connections, and gives the loops back.
func (ls *lease) end() {
	ls.users.Wait()
	if ls.engine != nil {
		ls.engine.Release()
	}
}

// backoffAccept grows from 10 ms to 1 s while accept fails.
type backoffAccept time.Duration

func (b *backoffAccept) sleep(ctx context.Context) {
	d := min(max(2*time.Duration(*b), 10*time.Millisecond), time.Second)
	*b = backoffAccept(d)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Server) track(ln net.Listener) bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[ln] = struct{}{}
	s.watching.Do(func() { s.budget.watch(s) })
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.connMu.Lock()
	delete(s.listeners, ln)
	s.connMu.Unlock()
	_ = ln.Close()
}

func (s *Server) isClosing() bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	return s.closing
}

// addrHost is the address without the port, for limits per address.
func addrHost(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return a.String()
}

// leave uncounts one of an address. The lock is held.
func (s *Server) leave(host string) {
	s.total--
	if s.perAddr[host]--; s.perAddr[host] <= 0 {
		delete(s.perAddr, host)
	}
	s.settle()
}

// settle says so when the server is closing and the last connection is gone. The
// lock is held.
func (s *Server) settle() {
	if s.closing && len(s.conns) == 0 && len(s.handshakes) == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

func clip(t string) string { return t[:min(len(t), 256)] }

// gone uncounts a connection that has ended.
func (s *Server) gone(c *Conn, leave func()) {
	if err := c.err; err != nil && loud(err) {
		s.logger.Info("sluice: connection ended", "peer", c.peer.Addr, "error", clip(err.Error()))
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	delete(s.conns, c)
	leave()
}

// loud tells whether a connection's end is worth a line.
func loud(err error) bool {
	var ce *ConnError
	return errors.As(err, &ce) && ce.Code != CodeOK && ce.Code != CodeConnectionLost
}

// Shutdown drains the server: it accepts no more connections, tells its clients
// to open no more streams, refuses those that come nevertheless as not
// processed, and waits until the open ones have ended; then it closes. When ctx
// ends, or after Limits.Drain if it has no deadline, it closes at once and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.limits.Drain)
		defer cancel()
	}
	for _, c := range s.stopListening(false) {
		c.drain()
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		_ = s.Close()
		return fmt.Errorf("sluice: shutdown: %w", context.Cause(ctx))
	}
}

// Close ends every connection at once, and waits until they are gone: see
// Conn.Close. Handlers are told by their contexts, and not waited for.
func (s *Server) Close() error {
	s.end()
	conns := s.stopListening(true)
	s.connMu.Lock()
	for nc := range s.handshakes {
		_ = nc.Close()
	}
	s.connMu.Unlock()
	for _, c := range conns {
		c.shut()
	}
	<-s.empty
	return nil
}

// stopListening closes the listeners and returns the connections that there are.
func (s *Server) stopListening(cut bool) []*Conn {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	s.closing, s.cut = true, s.cut || cut
	for ln := range s.listeners {
		_ = ln.Close()
	}
	clear(s.listeners)
	s.settle()
	return s.connsLocked()
}
