package conn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// A Stream is what a connection needs of a stream. The reader calls everything
// but Fill, RoomFree, RoomGone and Lost; none of the methods waits.
type Stream interface {
	// Deliver takes over whole messages in order.
	Deliver(run *pool.Queue, now time.Time) error
	// Fragment takes a piece of a message, a Data frame that is valid during the call.
	Fragment(f *frame.Frame, now time.Time) error
	// Control takes any other frame of the stream, valid during the call.
	Control(f *frame.Frame) error
	// Fill writes what is due, data for at most most bytes of credit.
	Fill(sess frame.Session, o *frame.Out, most int, data bool) (used int, again bool)
	// RoomFree says that the connection may take more again.
	RoomFree()
	// RoomGone says that the connection takes no more for now.
	RoomGone()
	// Held is how many bytes it holds unread, and how many were ever taken. Any
	// time.
	ReadProgress() (bytes int, taken uint64)
	// Evict ends the stream for want of memory. Any time.
	Evict(reason string)
	// Lost says that the stream ends because of err. refused says that the peer
	// never looked at it.
	Lost(err error, refused bool)
}

// A Handler is what a connection needs of the program above it. It is called by
// the reader and must not wait.
type Handler interface {
	// Started says that the connection begins: nothing was read of it before.
	Started(c *Conn)
	// Open handles the peer's wish to open streams, numbered f.Stream and
	// upwards in steps of two, one for each of f.Grants. It calls Attach for
	// each, or returns why not.
	Open(c *Conn, f *frame.Frame) *Refusal
	// GoAway says that the peer takes no more streams.
	GoAway(c *Conn)
	// Closed says that the connection is gone, and why. It is called once.
	Closed(c *Conn, err error)
}

// A Refusal is the answer to an open that is not to be.
type Refusal struct {
	Code         frame.Code
	Reason       string
	NotProcessed bool // no handler saw it
}

// ErrGoingAway is the cause where a connection takes no new streams.
var ErrGoingAway = errors.New("sluice: connection is going away")

// ErrTooManyStreams: as many streams are open as the peer allows.
var ErrTooManyStreams = errors.New("sluice: too many streams on the connection")

// An Error ends a connection and every stream on it.
type Error struct {
	Addr   net.Addr   // the peer's
	Op     string     // "dial", "handshake", "read", "write", "keepalive", "close"
	Code   frame.Code // what the peer is, or was, told
	Remote bool       // the peer ended it
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("sluice: %s %v: ", e.Op, e.Addr)
	if e.Remote {
		s += "by peer: "
	}
	if e.Err == nil {
		return s + e.Code.String()
	}
	return s + e.Err.Error()
}

// Is lets errors.Is(err, &Error{Code: c}) ask for a code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Config is what a connection is made with.
type Config struct {
	Session frame.Session
	Client  bool    // we opened the connection
	Limits  *Limits // shared, and not changed
	Peer    frame.Settings
	Handler Handler
	Timers  *timers.Queue
	Remote  net.Addr
	RTT     time.Duration // of the handshake, where it is known
}

// A Conn is one connection.
type Conn struct {
	cfg  Config
	sess frame.Session
	lim  *Limits
	tr   transport

	caps      frame.Caps
	pacing    frame.Pacing
	maxStream uint64 // the last number that a stream can have
	window    int    // bytes of credit that the peer may have unread
	pause     pause
	events    events

	// Owned by the reader.
	in       input
	lastPeer uint64 // number of the last stream that the peer opened
	abuse    abuse

	mu           sync.Mutex // table, numbers, windows, ending
	table        table
	nextLocal    uint64 // number of the next stream that we open
	local, peer  int    // streams open, by who opened them
	children     int    // see Hold
	extraWindows int    // window bytes beyond the initial ones
	assembled    int
	openBytes    int // bytes: see Port.Keep
	goAway       goAwayState
	ended        bool // nothing new begins
	cause        *Error
	closed       bool // Closed was called
	onFree       func()

	out output

	peerSettings atomic.Pointer[frame.Settings] // changed by the reader, with mu held

	creditSeen atomic.Uint64 // credit that the peer used, as of the last input
	buffered   atomic.Int64  // bytes that the session keeps, as of then
	streams    atomic.Int32  // streams, own and the peer's
	returned   atomic.Uint64 // credit that our streams returned
	advertised atomic.Uint64 // of it, what the peer knows
	granted    atomic.Uint64 // by the peer
	sentCost   atomic.Uint64
	queued     atomic.Int64  // bytes of credit waiting to be written
	peerRead   atomic.Uint64 // bytes of ours that the peer's loop has read

	keeper  keeper
	flusher func() // flushSoon; made once, for a go statement allocates what it makes
}

// awayState is how far each side's goodbye is.
type goAwayState struct {
	sent           bool   // we said that we take no more streams
	lastStream     uint64 // streams of the peer's above it are not served
	final          bool   // limit was told
	received       bool   // the peer said so
	peerLastStream uint64 // streams of ours above it are not served
}

func newConn(cfg Config) *Conn {
	c := &Conn{cfg: cfg, sess: cfg.Session}
	c.lim = cfg.Limits
	c.caps = c.sess.Caps()
	c.pacing, c.maxStream = c.caps.Pacing, c.caps.MaxStream
	c.window = max(c.lim.ConnWindow, c.caps.ConnWindow)
	if c.pacing == frame.Unpaced {
		c.pause.resume = make(chan struct{}, 1)
	}
	c.flusher = c.flushSoon
	c.keeper.start = time.Now()
	c.out.init(c.lim.InFlight)
	c.peerSettings.Store(&c.cfg.Peer)
	c.granted.Store(cfg.Peer.ConnCredit)
	c.in.limit = uint64(c.window)
	if c.pacing != frame.Granted { // what there is instead of it is looked up when it is needed
		c.in.limit = 0
	}
	c.nextLocal = 2
	if cfg.Client {
		c.nextLocal = 1
	}
	c.goAway.lastStream = c.maxStream
	return c
}

// Peer is the other side's address.
func (c *Conn) Peer() net.Addr { return c.cfg.Remote }

// Caps is what the protocol can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Limits are the limits in force.
func (c *Conn) Limits() *Limits { return c.lim }

// Timers is the queue that the connection and its streams use.
func (c *Conn) Timers() *timers.Queue { return c.cfg.Timers }

// Err is why the connection ended, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		return nil
	}
	return c.cause
}

// Streams is the number of streams that are open.
func (c *Conn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local + c.peer
}

// usable is why n streams can't be opened now, or nil.
func (c *Conn) usable(n int) error {
	switch {
	case c.cause != nil:
		return c.cause
	case c.goAway.received || c.goAway.sent || c.ended:
		return ErrGoingAway
	case c.local+n > int(c.peerSettings.Load().MaxStreams):
		return ErrTooManyStreams
	case !c.hasNumbers(n):
		return ErrGoingAway
	}
	return nil
}

// numbers tells whether there are numbers for n more streams, after those that are
// open, some of which may have none yet. The lock is held.
func (c *Conn) hasNumbers(n int) bool { return c.nextLocal+uint64(2*(c.local+n)) <= c.maxStream }

// Usable tells whether streams can be opened at all, as many at once as one likes,
// should there be too many or not.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause == nil && !c.goAway.received && !c.goAway.sent && !c.ended && c.hasNumbers(c.caps.MaxGroup)
}

// EndWithStreams has the connection end when its last stream has.
func (c *Conn) EndWithStreams() {
	c.mu.Lock()
	c.goAway.final = true
	c.mu.Unlock()
}

// Reserve counts n streams in that are about to be opened; alone asks for a
// connection on which there are none. OnFree's function is called when there may be
// room again.
func (c *Conn) Reserve(n int, alone bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(n); err != nil {
		return err
	}
	if alone && c.local > 0 {
		return ErrTooManyStreams
	}
	c.local += n
	c.streams.Add(int32(n))
	return nil
}

// OnFree has f called, under no lock, whenever a stream of ours has ended.
func (c *Conn) OnFree(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onFree = f
}

// Fail ends the connection: the peer is told code and reason, and every stream
// is lost with it.
func (c *Conn) Fail(op string, code frame.Code, err error) {
	c.end(&Error{Addr: c.cfg.Remote, Op: op, Code: code, Err: err}, true)
}

// Close ends the connection in order, from our side: streams that are open are
// lost.
func (c *Conn) Close() { c.Fail("close", frame.CodeOK, net.ErrClosed) }

var errPanic = errors.New("panic")

// panicked ends the connection after a panic in what its reader had called. The reader
// held the output back, and writes what is left: a goodbye, that does not say what the
// panic was of.
func (c *Conn) panicked(r any) {
	c.Fail("read", frame.CodeInternal, fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack()))
	c.out.uncork(c, 0)
}

// lost is called by the transport when the connection is gone. A socket's io.EOF
// is not passed on: to a stream's reader it would mean that all is well.
func (c *Conn) lost(op string, err error) {
	code := frame.CodeConnectionLost
	switch {
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case op == "write" && errors.Is(err, os.ErrDeadlineExceeded):
		code, err = frame.CodeWriteStall, errStalled
	}
	c.end(c.endAfterLinger(&Error{Addr: c.cfg.Remote, Op: op, Code: code, Err: err}), false)
}

// end is the one way in which a connection ends. Streams hear of it first, each
// after what was delivered to it; then the transport writes what is left, a
// goodbye among it, if there is still somebody to write to.
func (c *Conn) end(e *Error, goodbye bool) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		if !goodbye {
			c.finish()
		}
		return
	}
	c.cause, c.ended = e, true
	c.goAway.lastStream = min(c.goAway.lastStream, c.lastPeer) // what comes from now on is refused
	ports := c.table.all()
	served := c.maxStream
	if c.goAway.received {
		served = c.goAway.peerLastStream
	}
	c.mu.Unlock()
	unborn := c.out.takeUnnumbered()
	for _, p := range ports {
		p.s.Lost(e, p.local && p.id.Load() > served)
	}
	for _, p := range unborn {
		p.s.Lost(e, true)
	}
	if goodbye && c.tr != nil {
		c.sendGoAway(e)
		return
	}
	c.finish()
}

// lingerTime is how long a goodbye may take to be written.
const lingerTime = 100 * time.Millisecond

func (c *Conn) sendGoAway(e *Error) {
	reason := ""
	switch {
	case e.Code == frame.CodeOK || e.Err == nil:
	case errors.Is(e.Err, errPanic):
		reason = errPanic.Error()
	default:
		reason = clip(e.Err.Error())
	}
	c.keeper.linger(c, lingerTime)
	c.out.requestControl(c, func(o *output) {
		o.goAway = &frame.Frame{Kind: frame.GoAway, Value: c.lastPeerSeen(), Code: e.Code, Reason: reason}
		o.dying = true
	})
}

// clip keeps a reason short: it ends up in somebody's log.
func clip(s string) string { return s[:min(len(s), 256)] }

func (c *Conn) lastPeerSeen() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(c.goAway.lastStream, c.lastPeer)
}

// begin starts the connection, which may have been closed already.
func (c *Conn) start() {
	c.keeper.begin(c)
	if c.cfg.RTT > 0 {
		c.keeper.rtt.Store(int64(c.cfg.RTT))
	}
	if rtt := int64(c.cfg.RTT); c.caps.ReadReports && (rtt == 0 || rtt > shortPath) {
		c.ping(1) // the handshake's time is not the path's alone
	}
}

// finish closes the transport and tells the handler, once.
func (c *Conn) finish() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	e := c.cause
	c.mu.Unlock()
	if !first {
		return
	}
	c.keeper.stop(c)
	c.wakeReader()
	if c.tr != nil {
		c.tr.close()
	}
	c.cfg.Timers.Stop(&c.events.timer)
	c.sess.Closed()
	c.cfg.Handler.Closed(c, e)
}
