package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// host is what a server and a client have in common: handlers for streams that
// the other side opens, limits and timers.
type host struct {
	limits    Limits
	stream    StreamOptions
	protocols []Protocol
	checksum  bool
	token     []byte
	logger    *slog.Logger
	timers    timers.Queue
	panics    atomic.Uint64
	pressure  atomic.Int64 // memory held, in percent of the limit
	authorize func(ctx context.Context, id Identity, method string, md Metadata) error
	onConn    func(*Conn)
	away      func(*Conn)

	mu          sync.RWMutex
	handlers    map[string]entry
	parents     map[uint64]*Conn // by number; a server's
	parentAdded chan struct{}    // closed when there is one more; nil if nobody waits
	offers      chan *Offer      // made by the first call of Offers
}

// entry is one registered handler: one of the two.
type entry struct {
	stream func(ctx context.Context, s *Stream) error
	offer  func(ctx context.Context, o *Offer) error
}

// mustBeGiven panics if the handler for method is nil: it is better to hear of that
// at once than by every open's failing.
func mustBeGiven(given bool, method string) {
	if !given {
		panic("sluice: nil handler for " + strconv.Quote(method))
	}
}

func (h *host) handle(method string, e entry) {
	mustBeGiven(e.stream != nil || e.offer != nil, method)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.handlers == nil {
		h.handlers = map[string]entry{}
	}
	h.handlers[method] = e
}

// lookup finds what serves method; the zero entry is for Offers.
func (h *host) lookup(method string) (entry, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	e, ok := h.handlers[method]
	return e, ok || h.offers != nil
}

// dispatch gets an offer to its handler. It runs on the reader and does not
// wait.
func (h *host) dispatch(o *Offer, e entry) {
	if e.stream == nil && e.offer == nil && h.authorize == nil {
		h.queue(o)
		return
	}
	if j := (job{o, e}); o.conn.running.enter(j) {
		go h.work(j)
	}
}

// work serves an offer in its own goroutine, and then others of the connection.
func (h *host) work(j job) {
	over := false
	defer func() {
		if over {
			return
		}
		// The handler called runtime.Goexit: those that wait need another goroutine.
		if j, ok, _ := j.o.conn.running.leave(nil); ok {
			go h.work(j)
		}
	}()
	running := &j.o.conn.running
	for ok := true; ok; {
		h.run(j.o, j.e)
		j, ok = running.next(&h.timers)
	}
	over = true
}

// run serves one offer.
func (h *host) run(o *Offer, e entry) {
	returned := false
	defer h.recovered(o, &returned)
	defer o.handlerReturned()
	if h.authorized(o) {
		h.serve(o, e)
	}
	returned = true
}

func (h *host) serve(o *Offer, e entry) {
	switch {
	case e.stream != nil:
		o.receiveRequest()
		h.runStream(o, e)
	case e.offer != nil:
		o.receiveRequest()
		err := e.offer(o.streams[0].Context(), o)
		h.unanswered(o, err)
	default:
		h.queue(o)
	}
}

// authorized asks the program, and refuses the offer if it says no, or nothing
// in time.
func (h *host) authorized(o *Offer) bool {
	if h.authorize == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(o.streams[0].Context(), h.limits.Authenticate)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		o.reject(&conn.Refusal{Code: CodeUnavailable, Reason: "authorisation takes too long", NotProcessed: true})
	})
	defer stop()
	err := h.authorize(ctx, o.conn.identity, o.Method(), o.metadata)
	if !stop() {
		return false
	}
	if err == nil {
		return true
	}
	code, reason := StatusOf(err)
	if code == CodeUnknown {
		code = CodePermissionDenied
	}
	o.reject(&conn.Refusal{Code: code, Reason: reason, NotProcessed: true})
	return false
}

// runStream runs a handler of Server.Handle. Its stream is accepted by its first
// use, and ends as the handler does.
func (h *host) runStream(o *Offer, e entry) {
	s := o.streams[0]
	defer s.c.EndContext()
	s.c.lazy.Store(o)
	err := e.stream(s.Context(), s)
	s.Finish(err)
}

// unanswered is what becomes of an offer whose handler has returned.
func (h *host) unanswered(o *Offer, err error) {
	code, reason := CodeFailedPrecondition, "not accepted"
	if err != nil {
		code, reason = StatusOf(err)
	}
	o.mu.Lock()
	answered := o.answered
	o.mu.Unlock()
	if !answered {
		o.Reject(code, reason)
		return
	}
	if err != nil {
		for _, s := range o.streams {
			s.c.Finish(code, reason, s.c.trailer())
		}
	}
}

// recovered turns a handler's panic, or its goroutine's exit, into the end of its
// stream.
func (h *host) recovered(o *Offer, returned *bool) {
	r := recover()
	if *returned {
		return
	}
	h.panicked(o.Method(), o.conn.peer.Addr, r)
	for _, s := range o.streams {
		s.Abort(CodeInternal, "the handler panicked")
	}
}

// panicked counts and logs a handler's panic; nil is the goroutine's exit.
func (h *host) panicked(method string, peer net.Addr, r any) {
	h.logPanic("sluice: handler panicked", "method", method, peer, r)
}

var errHook = errors.New("the hook panicked")

// hook calls one of the program's hooks. A panic, or its goroutine's exit, is counted
// and logged as a handler's is, and gives errHook.
func (h *host) hook(name string, peer net.Addr, f func() error) (err error) {
	returned := false
	defer func() {
		if r := recover(); !returned {
			h.logPanic("sluice: hook panicked", "hook", name, peer, r)
			err = errHook
		}
	}()
	err = f()
	returned = true
	return err
}

func (h *host) logPanic(text, what, name string, peer net.Addr, r any) {
	if r == nil {
		r = "runtime.Goexit"
	}
	h.logger.Error(text, what, name, "peer", peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	h.panics.Add(1)
}

// queue puts an offer into Offers, or refuses it: nobody is waited for.
func (h *host) queue(o *Offer) {
	o.setPending()
	select {
	case h.offers <- o:
	default:
		o.reject(&conn.Refusal{Code: CodeResourceExhausted, Reason: "too many offers wait", NotProcessed: true})
	}
}

// settings is what we say about ourselves over a protocol. plain says that nothing below
// it finds bytes that were changed on the way.
func (h *host) settings(caps *frame.Caps, plain bool) frame.Settings {
	l := &h.limits
	return frame.Settings{
		Checksum:      plain && h.checksum,
		MaxFragment:   uint64(caps.MaxFragment),
		MaxMessage:    uint64(l.MaxMessage),
		MaxStreams:    uint64(l.MaxStreams),
		MaxMetadata:   uint64(min(l.MaxMetadata, caps.MaxMetadata)),
		InitialCredit: uint64(l.InitialCredit()),
		ConnCredit:    uint64(max(l.ConnWindow, caps.ConnWindow)),
		Token:         h.token,
	}
}

// A joint is what a handshake has found, ready to become a connection.
type joint struct {
	nc    net.Conn
	proto Protocol
	sess  frame.Session
	g     *frame.Greeting
	rtt   time.Duration

	parent *Conn // of a client's connection that belongs to another
}

// neverBegan tells a session whose handshake is done that nothing comes of it.
func neverBegan(sess frame.Session) {
	if sess != nil {
		sess.Closed()
	}
}

// attach makes a connection; fill completes it before anything happens on it.
func (h *host) attach(e *conn.Engine, j *joint, fill func(*Conn)) (*Conn, error) {
	c := &Conn{
		host: h, protocol: j.proto.Name(), client: j.g.Client, caps: j.sess.Caps(), done: make(chan struct{}),
		peer: Peer{Addr: j.nc.RemoteAddr(), Token: j.g.Peer.Token}, running: handlers{most: h.limits.MaxStreams},
	}
	if most := j.g.Peer.MaxFragment; most > 0 { // what the peer takes, if it says
		c.caps.MaxFragment = int(min(uint64(c.caps.MaxFragment), most))
	}
	if tc, ok := j.nc.(*tls.Conn); ok {
		st := tc.ConnectionState()
		c.peer.TLS = &st
	}
	cfg := conn.Config{
		Session: j.sess, Client: j.g.Client, Limits: &h.limits, Peer: j.g.Peer, Handler: (*link)(c),
		Timers: &h.timers, Remote: j.nc.RemoteAddr(), RTT: j.rtt,
	}
	var noPlace error
	made := func(k *conn.Conn) {
		c.c = k
		fill(c)
		noPlace = c.findPlace(j.g, j.parent)
	}
	if e != nil && conn.Loops(j.nc) && c.caps.Pacing != frame.Unpaced {
		if _, err := e.Attach(j.nc, cfg, j.g.Early, made); err != nil {
			c.host.removeParent(c)
			c.leaveParent()
			neverBegan(j.sess)
			return c, err
		}
	} else {
		conn.Serve(j.nc, cfg, j.g.Early, made)
	}
	if noPlace != nil {
		c.c.Fail("open", CodeUnavailable, noPlace)
	}
	return c, nil
}
