package frame

import (
	"errors"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// A Session is one connection's protocol: bytes in and frames out, frames in and bytes
// out. Each method is called by the connection's reader, by its writer, or by any
// goroutine, as documented; reader and writer may run at once. Base has the methods that
// few protocols need.
type Session interface {
	// Next belongs to the reader. It cuts the first frame off p, fills f and returns how
	// many bytes it consumed. If p holds no complete frame it keeps what it needs of p,
	// consumes all of it and sets f.Kind to None. An error ends the connection.
	Next(p []byte, f *Frame) (int, error)
	// Run belongs to the reader. It appends to q what Next would return one by one: the
	// whole messages of stream id that come next in p. It returns how many bytes of p
	// they were; 0 leaves them to Next.
	Run(p []byte, id uint64, a *pool.Arena, q *pool.Queue) int
	// RunBundles is Run for a stream whose reader takes small messages in bundles of frames.
	RunBundles(p []byte, id uint64, q *pool.Queue) int
	// Begun belongs to the reader. It is the position in the input where an incomplete
	// frame begins; ok is false if there is none.
	Begun() (at int64, ok bool)
	// Buffered belongs to the reader. It is how many bytes of input the session keeps
	// until it can hand them on.
	Buffered() int
	// Full belongs to the reader, which calls it after each input. It is nil when reading
	// may go on. Else reading waits until the channel is closed; then Next is called with
	// nothing until it returns None, and Full again.
	Full() (wait <-chan struct{})

	// The following belong to the writer.

	// Messages appends whole messages, and takes them over.
	Messages(o *Out, id uint64, run pool.Queue)
	// Fragment appends a piece of m, from off to off+n of its cost: first comes
	// Caps.Overhead, then its bytes. It takes m over with the last piece.
	Fragment(o *Out, id uint64, m pool.Message, off, n int)
	// Control appends any other frame.
	Control(o *Out, f *Frame)
	// Tick appends what is due by now. It is called when it is time for what Wake said.
	Tick(o *Out)
	// Flush completes what was appended: after it, o can be written.
	Flush(o *Out)
	// Event fills f, as Next does, with an event that writing or time has caused, not the
	// peer. It is called after each Flush, until it returns false.
	Event(f *Frame) bool
	// Wake is when Tick is to be called; the zero Time is not at all. It is asked after the
	// events of each Flush.
	Wake() time.Time

	// Pack returns m compressed by c, which the peer unpacks, and marked by pool.MarkPacked,
	// or m itself if that is no shorter. m stays the caller's. A sender calls it, at any time.
	Pack(m pool.Message, c pool.Compression) pool.Message
	// Unpack decompresses a message of stream id that came Packed, to at most most bytes,
	// and takes m over. The goroutine that takes the message calls it, at any time. An
	// error ends the stream: ErrUnpacked if the message is longer.
	Unpack(id uint64, m pool.Message, most int) (pool.Message, error)
	// Allows reports whether this side may open n more streams while so many of its own are
	// open, beside what the peer's Settings say. After a no, Freed is an event. Any goroutine
	// may call it, also under locks of the connection's.
	Allows(open, n int) bool
	// Closed is called once, when the connection has ended or has never begun: at any time
	// after the handshake, by any goroutine. No Next and no Run is under way then, and none
	// follows, so what the reader owns may be released. The writer may still be at work.
	Closed()
	// Caps tells what the protocol can carry. It is constant, and any goroutine may call it.
	Caps() Caps
}

// Base is a part of a Session without the events, timers and pauses that few protocols
// need.
type Base struct{}

// Run leaves all messages to Next.
func (Base) Run([]byte, uint64, *pool.Arena, *pool.Queue) int { return 0 }

// RunBundles leaves all messages to Run, or to Next.
func (Base) RunBundles([]byte, uint64, *pool.Queue) int { return 0 }

// Full never pauses the reader.
func (Base) Full() <-chan struct{} { return nil }

// Tick has nothing due.
func (Base) Tick(*Out) {}

// Flush has nothing to complete.
func (Base) Flush(*Out) {}

// Event has none.
func (Base) Event(*Frame) bool { return false }

// Wake asks for no Tick.
func (Base) Wake() time.Time { return time.Time{} }

// Pack returns m: there is no compression.
func (Base) Pack(m pool.Message, _ pool.Compression) pool.Message { return m }

// Unpack fails: there is no compression.
func (Base) Unpack(_ uint64, m pool.Message, _ int) (pool.Message, error) {
	m.Release()
	return pool.Message{}, errPacked
}

var errPacked = errors.New("a compressed message on a protocol without compression")

// ErrUnpacked is returned by Unpack for a message that is too large when decompressed.
var ErrUnpacked = errors.New("the message is too large when it is unpacked")

// Allows has no bound of its own.
func (Base) Allows(int, int) bool { return true }

// Closed has nothing to release.
func (Base) Closed() {}

// Pacing is what bounds the bytes that were sent and that the peer's application
// has not taken.
type Pacing uint8

// The ways of pacing.
const (
	// Granted: the receiver grants credit. Credit frames carry what may be sent in all.
	Granted Pacing = iota
	// Reported: the receiver reports what its application has taken, and the
	// sender keeps to a window of its own. Credit frames carry the payload bytes
	// taken in all; they are sent when the receiver's queue is empty, at the latest.
	// A message is sent whole as soon as there is any credit.
	Reported
	// Unpaced: there is neither. What a sender has accepted and not written is
	// bounded, and a receiver that can hold no more stops reading the connection.
	Unpaced
)

// Caps is what a protocol can carry.
type Caps struct {
	Name         string
	Schemes      string // further words for it in targets, with a comma before and behind each
	Pacing       Pacing
	HalfClose    bool // one direction can end before the other
	Ended        bool // a side says when its application has received the end
	Status       bool // an end carries code, reason and trailers
	AnswerStatus bool // with Status: the end of the accepting side's half alone does; the opener's is in order, or a reset
	Stop         bool // a receiver can stop its sender, which ends that half: there is none without HalfClose
	StopAtEnd    bool // it can as soon as its own half has ended: the session keeps a Stop until then
	ServerOpens  bool // the accepting side of the connection may open streams
	Early        bool // data may follow an open at once; else it waits for the answer
	Limits       bool // each side says, in its Settings, what it takes
	Ping         bool // a side can ping the other
	PingIdle     bool // and may do so while no stream is open
	ReadReports  bool // the peer reports how many bytes of the connection it has read
	FixedWindow  bool // every stream begins with the window of the Settings, whatever its options
	Outlives     bool // an open's deadline is that of its answer: the stream outlives it
	EarlyWindow  int  // what a stream begins with whose opener does not know the Settings yet (Frame.Unsettled), bytes below 64 KiB; 0: every opener does
	Overhead     int  // what a message costs of the credit beside its length, so that empty messages are not free
	LeastPiece   int  // of a message's cost, what its first piece takes at least, or all of it
	SendWindow   int  // where the receiver grants no credit: what a stream may have unread, bytes
	// Where the receiver reports: how many bytes the streams of a connection may have unread
	// together before each may have no more than LeastUnreported; 0: no limit.
	ConnUnreported, LeastUnreported int

	MaxOverrun  int    // by how much a message may be longer than MaxMessage before it is refused, bytes
	ALPN        string // the protocol's name in TLS, which clients must offer; "": none
	TextValues  bool   // values of metadata are printable ASCII, but those of keys that end in "-bin"
	Reserved    string // keys that metadata can't have, with a comma before and behind each
	Unread      string // key of the trailer of a half that nobody at the peer reads; "": the session need not be told
	FixedValues bool   // values are laid out in the fixed way, unless the program chooses otherwise, and nothing says how
	Verbs       bool   // a method is a number, "#7"; other names can't be said
	StreamsByID bool   // a stream has a connection of its own, and calls on its parent name it by a number
	MaxFragment int    // largest piece of a message, bytes
	MaxInline   int    // longest request or reply that travels in an Open or Accept, bytes; a longer one is the first message
	LongInline  bool   // a peer may send longer ones there, up to MaxMessage
	GrantSize   int    // bytes of MaxInline that each further stream of a request takes
	MaxGroup    int    // streams that one request may open
	PeerStreams int    // how many of the peer's streams a session lets be open, by reading no further; 0: it reads on, and those beyond Limits.MaxStreams are refused
	PeerCalls   int    // how many of the peer's calls (Frame.Unary) may be open beside its streams, those that wait for a handler among them; 0: a call counts as a stream
	MaxMetadata int    // bytes of metadata in one frame, as Metadata.Size counts; 0: keys that begin with Name and "-" alone, as instructions to the session
	Bundles     byte   // the type of a frame that is a whole message, whose header is 3 bytes of length, this, and 4 of the stream's number, in the least significant byte first; 0: there are no bundles of such frames
	MaxStream   uint64 // the last number that a stream can have
	ConnWindow  int    // the smallest window of a connection, bytes

	// Compression is how messages can be compressed towards a peer whose Settings have
	// that too; CallCompression, those of calls (Frame.Unary) towards any peer.
	Compression, CallCompression pool.Compressions
	// StreamCompression: a stream's messages are compressed in one way, which its open or
	// answer names; and an open says how its opener unpacks (Frame.Compression, Unpacks).
	StreamCompression bool

	// Keepalive is after how long without input the peer is pinged, unless the program
	// says otherwise; 0 leaves that to the kernel.
	Keepalive time.Duration
	// IdleConn is after how long without streams a server ends a connection, unless the
	// program says otherwise; 0 leaves that to the kernel.
	IdleConn time.Duration
}

// Cost is what a message of n bytes takes of the credit.
func (c *Caps) Cost(n int) int { return n + c.Overhead }

// BadField returns the first key of md that can't be sent, and why; "" if all can be.
func (c *Caps) BadField(md metadata.MD) (key, why string) {
	if key, bad := md.BadKey(); bad {
		return key, "is no key"
	}
	for i := range md {
		switch f := &md[i]; {
		case listed(c.Reserved, f.Key):
			return f.Key, "belongs to " + c.Name
		case c.TextValues && !strings.HasSuffix(f.Key, "-bin") && !isText(f.Value):
			return f.Key, "needs to end in -bin: its value is not printable ASCII"
		}
	}
	return "", ""
}

// HasScheme reports whether a target's scheme is one of Schemes.
func (c *Caps) HasScheme(scheme string) bool {
	return scheme != "" && !strings.Contains(scheme, ",") && listed(c.Schemes, scheme)
}

// listed reports whether a word is in a list that has a comma before and behind each.
func listed(list, word string) bool {
	for {
		i := strings.Index(list, word)
		if i < 0 {
			return false
		}
		end := i + len(word)
		if i > 0 && list[i-1] == ',' && list[end] == ',' {
			return true
		}
		list = list[end:]
	}
}

// isText reports whether v is printable ASCII, without a space at either end.
func isText(v string) bool {
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return v == "" || v[0] != ' ' && v[len(v)-1] != ' '
}

// MinWindow is the smallest window of a stream: it must admit a message's overhead when
// half of it is owed.
func (c *Caps) MinWindow() int { return 2 * c.Overhead }

// LeastGrant is how much of a window of n bytes must be owed before its receiver grants it
// again: an eighth, so that on a long path nearly all of it is under way. Of a window below
// 32 KiB it is more, up to half: a smaller grant costs a frame, and makes a fragment.
func LeastGrant(n int) int { return max(n/8, min((n+1)/2, 4<<10)) }

// Part is what of a message's bytes is in the piece from off to off+n of its cost.
func Part(overhead, off, n int) (from, to int) {
	return max(off-overhead, 0), max(off+n-overhead, 0)
}

// inlineMax is the longest payload that is copied into the output. A longer one
// is written from where it is: beyond a few KiB the copy costs more than one
// more element in a gathered write.
const inlineMax = 4 << 10

// Out is output under construction: encoded bytes, and between them the
// payloads of large messages by reference.
type Out struct {
	Buf  []byte
	refs []ref
	refd int // bytes by reference
	held pool.Queue
	f    *Frame // what Scratch returns; nil: not asked for since Reset

	// Clock is what Now asks; nil is time.Now.
	Clock func() time.Time
	now   time.Time

	// Messages is how many were ever completed in it. Who has them appended counts.
	Messages uint64
}

// Now is the time of this output, for sessions with timers. The clock is read once, at the
// first call.
func (o *Out) Now() time.Time {
	if o.now.IsZero() {
		if o.now = time.Now(); o.Clock != nil {
			o.now = o.Clock()
		}
	}
	return o.now
}

// Scratch returns an empty frame of a kind, to be filled and passed to Control at once:
// the next call reuses it.
func (o *Out) Scratch(k Kind, id uint64) *Frame {
	if o.f == nil {
		o.f = GetFrame(k)
	}
	*o.f = Frame{Kind: k, Stream: id, Grants: o.f.Grants[:0]}
	return o.f
}

type ref struct {
	at int // position in Buf that the payload precedes
	p  []byte
}

// Len is the number of bytes to write.
func (o *Out) Len() int { return len(o.Buf) + o.refd }

// Payload appends p, by copy or by reference. By reference, the caller keeps p
// alive until the output was written: see Hold.
func (o *Out) Payload(p []byte) {
	if len(p) <= inlineMax {
		o.Buf = append(o.Buf, p...)
		return
	}
	o.refs = append(o.refs, ref{len(o.Buf), p})
	o.refd += len(p)
}

// Hold releases m when the output has been written.
func (o *Out) Hold(m pool.Message) {
	if m.Len() <= inlineMax {
		m.Release()
		return
	}
	o.held.Push(m)
}

// HoldAll releases every message of run when the output has been written; at
// once if from says that nothing by reference was appended since.
func (o *Out) HoldAll(run pool.Queue, from int) {
	if o.refd == from {
		run.Release()
		return
	}
	o.held.Append(&run)
}

// Refs is how many bytes were appended by reference.
func (o *Out) Refs() int { return o.refd }

// A Mark is a position in an Out.
type Mark struct{ buf, ref int }

// Mark returns the current end.
func (o *Out) Mark() Mark { return Mark{len(o.Buf), len(o.refs)} }

// Since calls f with every piece appended after m, in order.
func (o *Out) Since(m Mark, f func(p []byte)) {
	at := m.buf
	for _, r := range o.refs[m.ref:] {
		f(o.Buf[at:r.at])
		f(r.p)
		at = r.at
	}
	f(o.Buf[at:])
}

// LenSince is the number of bytes appended after m.
func (o *Out) LenSince(m Mark) int {
	n := len(o.Buf) - m.buf
	for _, r := range o.refs[m.ref:] {
		n += len(r.p)
	}
	return n
}

// Vec appends the output to v as pieces to write in order.
func (o *Out) Vec(v [][]byte) [][]byte {
	at := 0
	for _, r := range o.refs {
		if r.at > at {
			v = append(v, o.Buf[at:r.at])
		}
		v = append(v, r.p)
		at = r.at
	}
	if at < len(o.Buf) {
		v = append(v, o.Buf[at:])
	}
	return v
}

// Reset empties o after its bytes were written, or when they never will be.
func (o *Out) Reset() {
	o.held.Release()
	clear(o.refs)
	o.now = time.Time{}
	if o.f != nil {
		PutFrame(o.f)
		o.f = nil
	}
	o.Buf, o.refs, o.refd = o.Buf[:0], o.refs[:0], 0
}

// At is the position of m in Buf.
func (o *Out) At(m Mark) int { return m.buf }
