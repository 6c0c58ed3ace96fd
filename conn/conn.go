package conn

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Stream is what a connection needs of a stream. The flush calls Fill, anybody
// RoomFree, RoomGone, ReadProgress, Held, Compact, Evict and Lost, the reader the rest. No method waits.
type Stream interface {
	// Deliver takes over whole messages in order.
	Deliver(run *pool.Queue, now time.Time) error
	// Fragment takes a piece of a message, a Data frame that is valid during the call.
	Fragment(f *frame.Frame, now time.Time) error
	// Control takes any other frame of the stream, valid during the call.
	Control(f *frame.Frame) error
	// Fill encodes the frames that are due: control frames, and with data set also data
	// for at most most bytes of credit. It returns what it used of them, and whether
	// there is more data.
	Fill(sess frame.Session, o *frame.Out, most int, data bool) (used int, again bool)
	// RoomFree: the connection may take more again.
	RoomFree()
	// RoomGone: the connection takes no more for now.
	RoomGone()
	// ReadProgress is how many bytes the stream holds unread, and how many its
	// application has taken in all.
	ReadProgress() (unread int, taken uint64)
	// Held is how many bytes of memory the stream's end would free.
	Held() int
	// Compact copies messages out of memory that little else is in, into memory of a. It returns
	// how many.
	Compact(a *pool.Arena) int
	// CapUse is what the stream takes of the cap on what a connection holds unread, where the
	// sender chooses its window, and for how long nothing of it was taken.
	CapUse(now time.Time) (n int, unreadFor time.Duration)
	// Evict ends the stream for want of memory.
	Evict(reason string)
	// Lost ends the stream because of err. refused: the peer has not processed it.
	Lost(err error, refused bool)
}

// A Handler is what a connection needs of the program above it. Its methods must not
// wait. The reader calls them, except for Outlived and Closed.
type Handler interface {
	// Started is called before anything is read.
	Started(c *Conn)
	// Open handles an Open of the peer's: streams numbered f.Stream and upwards in
	// steps of two, one for each of f.Grants. It calls OpenPeer for each stream, or
	// returns why they are refused.
	Open(c *Conn, f *frame.Frame) *Refusal
	// GoAway is called when the peer takes no more streams.
	GoAway(c *Conn)
	// Outlived is called, by the timer, when a server's connection has had no streams for long, or has
	// become as old as it may: it is to be drained because of why.
	Outlived(c *Conn, why error)
	// Closed is called once, when the connection has ended because of err.
	Closed(c *Conn, err error)
}

// Config is what a connection is made with.
type Config struct {
	Session frame.Session
	Client  bool    // we opened the connection
	Limits  *Limits // shared, and not changed
	Peer    frame.Settings
	Handler Handler
	Timers  *timers.Queue
	Remote  net.Addr
	RTT     time.Duration  // of the handshake; 0: unknown
	Lend    func(int) bool // lends so many bytes of memory to windows that grow beyond ConnWindow, or takes them back if negative; nil lends any
	Growth  *Growth        // is told what the connection holds more; nil: nobody asks
	Fault   Fault          // see Guard; nil tells nobody
	Foreign bool           // the session is of the program's

	Dependent bool // it is there for one stream of another connection, and as old as that
	// Awaited, on a connection that carries one stream and whose pacing is Unpaced, is closed when
	// this side's program knows of the stream. Once the peer has ended its half the connection is
	// not read on until then, for holdTime at most: its end would be the stream's. Nil waits for
	// nothing.
	Awaited <-chan struct{}
}

// A Conn is one connection.
type Conn struct {
	cfg  Config
	sess frame.Session
	use  sessionUse
	lim  *Limits
	tr   transport

	caps        frame.Caps
	pacing      frame.Pacing
	maxStream   uint64 // the last number that a stream can have
	firstWindow int    // bytes of credit that the peer may have unread at first: see window
	size        int    // bytes that the connection takes itself
	began       time.Time
	traces      traces
	timer       timers.Timer
	pause       pause
	loop        atomic.Int32 // see Info.Loop
	events      events
	health      health
	life        lifetime
	ending      ending
	flight      flight
	trip        roundTrip
	probing     atomic.Bool  // a ping is to be written: see probe
	probes      atomic.Int32 // how many were, up to mostProbes

	// Owned by the reader.
	in       input
	lastPeer uint64 // number of the last stream that the peer opened
	abuse    abuse

	mu             sync.Mutex // table, numbers, windows, ending
	table          table
	nextLocal      uint64 // number of the next stream that we open
	localStreams   int    // open, that we opened
	peerStreams    int    // open, that the peer opened
	peerCalls      int    // of those, the calls, where Caps.PeerCalls bounds them
	evictedStreams int    // of local and peer streams, evicted
	children       int    // streams on other connections that belong to this one
	extraWindows   int    // bytes of windows beyond the initial ones
	freshWindows   int    // of those, what streams have that nobody has read yet
	widest         int    // the largest that window has been beyond firstWindow; 0: never
	laps           laps
	growth         int // bytes of opened streams of which cfg.Growth does not know
	assembled      int // bytes reserved for messages in fragments
	openBytes      int // bytes that streams hold beside messages: see Port.Charge
	goAway         goAwayState
	cause          *status.ConnError // why the connection has ended
	endedAt        int64             // since its start; 0: it has not
	onFree         func()

	out output

	peerSettings atomic.Pointer[frame.Settings] // changed by the reader, with mu held

	// Credit that the peer has: advertised in all. creditSeen of it was used as of the last
	// input; streams have returned as much as returned says, and the peer may have window
	// beyond that. window changes with mu held.
	creditSeen atomic.Uint64
	returned   atomic.Uint64
	advertised atomic.Uint64
	window     atomic.Int64
	granting   atomic.Bool // a grant is to be written

	// Credit that we have: granted in all, sentCost of it is used, and the most that was not
	// used is sendWindow.
	granted    atomic.Uint64
	sentCost   atomic.Uint64
	sendWindow atomic.Int64

	buffered   atomic.Int64 // bytes that the session keeps, as of the last input
	streams    atomic.Int32 // localStreams and peerStreams, readable without mu
	queued     atomic.Int64 // bytes of credit accepted and not written
	unreported atomic.Int64 // see actor.Link
	beside     atomic.Int64 // bytes that messages take beside their credit: see Port.Beside
	unwritten  atomic.Int64 // bytes that are encoded, and that the socket has not taken

	peerRead atomic.Uint64 // bytes of ours that the peer's reader has read

	flusher func() // flushSoon; made once, because a go statement allocates what it makes
}

// goAwayState is how far each side's GOAWAY is.
type goAwayState struct {
	sent           bool   // we take no more streams
	lastStream     uint64 // the peer's streams above it are refused
	final          bool   // lastStream is in a GOAWAY that we have sent
	received       bool   // the peer takes no more streams
	peerLastStream uint64 // our streams above it are refused
	why            error  // what the connection ends with, when its streams have; nil: ErrGoingAway
	code           status.Code
	reason         string // with code, what Close tells the peer of streams that it ends
}

// input is the reader's state.
type input struct {
	run   pool.Queue // whole messages of one stream, in a row
	port  *Port      // the stream of run
	now   time.Time
	arena *pool.Arena

	bytesRead  uint64
	reported   uint64 // of bytesRead, what the peer was told
	soleSender *Port  // the stream that the last data was for
	soleFrom   uint64 // bytesRead when the first of its data in a row came

	used     uint64 // credit used by the peer
	limit    uint64 // credit that it has, as last computed
	grown    int64  // what was unread when Growth was told last
	messages int    // of this burst
	total    uint64 // messages
	ended    bool   // the peer has ended a half
}

// A pause is a reader that waits for what it has read to be taken.
type pause struct {
	resume chan struct{} // of one element; nil where readers never wait
	on     atomic.Bool
	since  atomic.Int64 // since the connection's start
}

// wake has a reader that waits check again.
func (p *pause) wake() {
	if p.on.Load() {
		select {
		case p.resume <- struct{}{}:
		default:
		}
	}
}

// Peer is the other side's address.
func (c *Conn) Peer() net.Addr { return c.cfg.Remote }

// Caps is what the protocol can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Limits are the limits in force.
func (c *Conn) Limits() *Limits { return c.lim }

// Timers is the queue that the connection and its streams use.
func (c *Conn) Timers() *timers.Queue { return c.cfg.Timers }

// PeerSettings are the peer's settings in force. They must not be changed.
func (c *Conn) PeerSettings() *frame.Settings { return c.peerSettings.Load() }

// Err is why the connection has ended, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		return nil
	}
	return c.cause
}

// Streams is the number of streams that are open. It takes no lock: balancers ask for each stream.
func (c *Conn) Streams() int { return int(c.streams.Load()) }

// noStreams reports whether no stream is open, on this connection or for it on
// another. mu is held.
func (c *Conn) noStreams() bool { return c.localStreams+c.peerStreams+c.children == 0 }

func (c *Conn) hasNoStreams() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noStreams()
}

// find returns the port of stream id, or nil.
func (c *Conn) find(id uint64) *Port {
	if p := c.table.find(id); p != nil {
		return p
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.get(id)
}

// whyUnnumbered is why a stream without a number will get none.
func (c *Conn) whyUnnumbered() error {
	if err := c.Err(); err != nil {
		return err
	}
	return c.errGoingAway()
}

func (c *Conn) errGoingAway() *status.ConnError {
	return &status.ConnError{Addr: c.cfg.Remote, Op: "open", Code: status.GoingAway, Remote: true, Err: ErrGoingAway}
}

// since is t in nanoseconds since the connection's start.
func (c *Conn) since(t time.Time) int64 { return int64(t.Sub(c.began)) }

// clock is the time in nanoseconds since the connection's start.
func (c *Conn) clock() int64 { return int64(time.Since(c.began)) }
