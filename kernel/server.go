package kernel

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
)

// A Server serves streams on the connections that it accepts. Its Handlers are those of
// ServerOptions.Handlers, which its methods then change, or its own.
type Server struct {
	*Handlers
	endpoint
	opts ServerOptions

	connMu        sync.Mutex
	conns         map[*Conn]struct{}
	total         int // connections, including those in their handshake
	perAddr       map[string]int
	listeners     map[net.Listener]struct{}
	handshakes    map[net.Conn]*pendingConn
	arrived       uint64        // connections that were accepted and not refused
	handshakeEnds chan struct{} // closed when a handshake is over; nil if nobody waits
	closing       bool
	closed        bool          // by Close, or by Shutdown after its time limit
	draining      chan struct{} // closed by the first Shutdown or Close
	empty         chan struct{} // closed when the server is closing and the last connection has ended
	budget        budget
	crowd         crowd
	measuring     sync.Once       // starts budget
	ctx           context.Context // ends with Close
	cancel        context.CancelFunc

	counters
}

// counters is what Stats reads.
type counters struct {
	accepted, refused, failed, unknownProtocol, evicted atomic.Uint64
}

// Stats is what a server or client has counted since it was made.
type Stats struct {
	Conns           int    // open connections
	Streams         int    // that peers have open, for Limits.MaxTotalStreams
	Memory          int    // bytes that count against Limits.Memory; of a client 0
	Accepted        uint64 // connections that completed their handshake
	Refused         uint64 // connections closed at once, because of a limit
	Failed          uint64 // handshakes that failed
	UnknownProtocol uint64 // those of Failed that spoke no known protocol
	Panics          uint64 // handlers and other functions of the program's that panicked
	Evicted         uint64 // streams and connections ended because of Limits.Memory
	ObserverDropped uint64 // calls of the Observer that were not made, because it was too slow
}

// NewServer returns a server; Serve starts it. Nil opts are the defaults. NewServer fails
// with ErrLimits if an option is out of range.
func NewServer(opts *ServerOptions) (*Server, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, conns: map[*Conn]struct{}{}, perAddr: map[string]int{},
		listeners: map[net.Listener]struct{}{}, handshakes: map[net.Conn]*pendingConn{},
		draining: make(chan struct{}), empty: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	named := opts != nil && opts.Limits.MaxConns != 0
	s.opts.Limits.MaxConns = min(o.Limits.MaxConns, descriptorBound(o.Limits.MaxConns, named))
	s.Handlers = o.Handlers.orNew(&o.Limits)
	s.endpoint.handlers = s.Handlers
	s.endpoint.limits, s.endpoint.stream, s.endpoint.protocols = o.Limits, o.Stream, o.Protocols
	s.endpoint.checksum, s.endpoint.logger = !o.NoChecksum, s.guardLogger(o.Logger)
	s.endpoint.authorize, s.endpoint.onConn = o.Authorize, o.OnConn
	s.endpoint.onGoAway = func(*Conn) {}
	s.endpoint.onCrowded = s.crowd.refused
	s.streamsByMemory = s.limits.Memory != Unlimited && (opts == nil || opts.Limits.MaxTotalStreams == 0)
	s.starts.init(s.begin)
	s.budget.init(s)
	s.crowd.s = s
	s.soundTLS(s.opts.TLS, s.noteHello)
	s.observing.o, s.observing.ep = o.Observer, &s.endpoint
	return s, nil
}

// Stats returns the server's counts.
func (s *Server) Stats() Stats {
	s.connMu.Lock()
	n := len(s.conns)
	s.connMu.Unlock()
	_, memory := s.uses()
	return Stats{
		Conns: n, Streams: int(s.opened.Load()), Memory: int(memory), Accepted: s.accepted.Load(), Refused: s.refused.Load(),
		Failed: s.failed.Load(), UnknownProtocol: s.unknownProtocol.Load(), Panics: s.panics.Load(),
		Evicted: s.evicted.Load(), ObserverDropped: s.observing.dropped.Load(),
	}
}

// Conns returns the server's connections.
func (s *Server) Conns() []*Conn {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	return s.connsLocked()
}

func (s *Server) connsLocked() []*Conn {
	cs := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		cs = append(cs, c)
	}
	return cs
}

// Options returns the server's options, with the defaults of fields that were zero. What is
// changed in them changes nothing; their Handlers are the server's own.
func (s *Server) Options() ServerOptions {
	o := s.opts
	o.Handlers = s.Handlers
	return o
}

// ListenAndServe calls Listen and Serve.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	ln, err := Listen(ctx, addr)
	if err != nil {
		return err
	}
	return s.Serve(ctx, ln)
}

// Serve accepts connections from ln, which it takes over. After Shutdown or Close it waits
// until all connections have ended, and returns ErrServerClosed. When ctx ends it calls
// Shutdown with Limits.Drain, also where another Shutdown has more time. Close cuts that
// short.
//
// If ln fails, or the program closes it, Serve returns a status.ConnError, and the connections
// stay open. While the process is out of descriptors or memory, Serve tries again.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.warnOfNames()
	ls, err := s.lease(ln)
	if err != nil {
		s.closeListener(ln)
		return err
	}
	if !s.track(ln) {
		ls.end()
		s.closeListener(ln)
		return ErrServerClosed
	}
	parent := &soundContext{of: ctx}
	stop := parent.watch(func() { _ = s.Shutdown(context.Background()) })
	defer stop()
	failed := make(chan error, 1)
	go s.serve(parent, ls, ln, failed)
	select {
	case err = <-failed:
	case <-s.empty:
		select {
		case <-failed:
		case <-time.After(closeTime): // it does not hear of its end
		}
	}
	if s.isClosing() {
		<-s.empty
		ls.end()
		return ErrServerClosed
	}
	s.untrack(ln)
	go ls.end() // when the connections have ended: they need the loops
	return &status.ConnError{Addr: s.addrOf(ln), Op: "accept", Err: err}
}

func (s *Server) track(ln net.Listener) bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.closing {
		return false
	}
	s.listeners[ln] = struct{}{}
	s.measuring.Do(func() { s.budget.watch() })
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.connMu.Lock()
	delete(s.listeners, ln)
	s.connMu.Unlock()
	s.closeListener(ln)
}

func (s *Server) isClosing() bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	return s.closing
}

// uncount takes a connection from host out of the counts. The lock is held.
func (s *Server) uncount(host string) {
	s.total--
	s.uncountAddr(host)
	s.signalIfEmpty()
}

// uncountAddr takes it out of the count for host. The lock is held.
func (s *Server) uncountAddr(host string) {
	if host == "" {
		return
	}
	if s.perAddr[host]--; s.perAddr[host] <= 0 {
		delete(s.perAddr, host)
	}
}

// signalIfEmpty closes empty if the server is closing and the last connection has ended.
// The lock is held.
func (s *Server) signalIfEmpty() {
	if s.closing && len(s.conns) == 0 && len(s.handshakes) == 0 {
		select {
		case <-s.empty:
		default:
			close(s.empty)
		}
	}
}

func clip(t string) string { return errtext.Clip(t, 256) }

// connEnded takes a connection that has ended out of the server.
func (s *Server) connEnded(c *Conn, uncount func()) {
	if err := c.err; err != nil && worthLogging(err) {
		code, _ := status.Of(err)
		s.logger.InfoContext(soon, "sluice: connection ended", "peer", c.peer.Addr, "code", code.String(), "error", clip(err.Error()))
	}
	s.connMu.Lock()
	defer s.connMu.Unlock()
	delete(s.conns, c)
	uncount()
}

// worthLogging reports whether the end of a connection is logged.
func worthLogging(err error) bool {
	var ce *status.ConnError
	if !errors.As(err, &ce) {
		return false
	}
	switch ce.Code {
	case status.OK, status.ConnectionLost, status.GoingAway:
		return false
	case status.Cancelled, status.Unavailable:
		return !ce.Remote // the peer has closed the connection
	}
	return true
}

// Shutdown stops the server gracefully. It accepts no more connections and tells the peers
// to open no more streams. Streams that are opened nevertheless are refused as not
// processed. Shutdown waits until the open streams have ended and closes the connections.
// When ctx ends, or after Limits.Drain if ctx has no deadline, it closes the connections
// with status.GoingAway and returns an error.
func (s *Server) Shutdown(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(sound(ctx), s.limits.Drain)
		defer cancel()
	}
	for _, c := range s.stopListening(false) {
		c.drain(nil)
	}
	select {
	case <-s.empty:
		s.observing.finish()
		return nil
	case <-ctx.Done():
		s.closeAll((*Conn).drainOver)
		return errtext.Errorf("sluice: shutdown: %w", context.Cause(ctx))
	}
}

// Draining returns a channel that is closed when the server begins to shut down: Shutdown
// or Close was called, or the context of a Serve has ended.
func (s *Server) Draining() <-chan struct{} { return s.draining }

// Close closes the listeners and all connections, and waits until they have ended: see
// Conn.Close. The Contexts of handlers end. Close does not wait for the handlers.
func (s *Server) Close() error {
	s.closeAll(func(c *Conn) { c.shut(status.Unavailable, serverClosed) })
	return nil
}

// serverClosed is the reason that a client with open streams is told.
const serverClosed = "the server was closed"

// closeAll ends every connection by end, and waits until they have ended.
func (s *Server) closeAll(end func(*Conn)) {
	s.cancel()
	conns := s.stopListening(true)
	for _, c := range conns {
		end(c)
	}
	<-s.empty
	s.observing.finish()
}

// stopListening closes the listeners and returns the connections.
func (s *Server) stopListening(closed bool) []*Conn {
	s.connMu.Lock()
	if !s.closing {
		close(s.draining)
	}
	s.closing, s.closed = true, s.closed || closed
	lns := slices.Collect(maps.Keys(s.listeners))
	clear(s.listeners)
	s.signalIfEmpty()
	conns := s.connsLocked()
	s.connMu.Unlock()
	for _, ln := range lns {
		s.closeListener(ln)
	}
	return conns
}
