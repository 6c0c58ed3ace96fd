package actor

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// A Link is what a stream needs of its connection. No method waits. The stream
// calls those marked "any time" also under its lock, the others never.
type Link interface {
	// ID is the stream's number on the wire, 0 until it has one. Any time.
	ID() uint64
	// Forsake makes sure that the stream never gets a number. It reports false if
	// the stream has one already. Any time.
	Forsake() bool
	// Ready asks for a call of Fill: at once for a control frame (urgent), otherwise
	// when it is this stream's turn.
	Ready(urgent bool)
	// ReadySoon is Ready(false), but another goroutine does the writing.
	ReadySoon()
	// Queued adds delta to the bytes that the stream could write now.
	Queued(delta int)
	// Uncounted is the most bytes that a stream may have queued without telling. Any time.
	Uncounted() int
	// Beside adds delta to the bytes of memory that messages take and that no other method
	// counts. Any time.
	Beside(delta int)
	// Room reports whether the connection accepts more data now; little says that little of
	// the stream is unwritten, and that its message takes memory anyway. Any time.
	Room(little bool) bool
	// Unreported adds delta to the bytes that the streams have accepted and that the peer has
	// not reported, where it reports. Any time.
	Unreported(delta int64)
	// Crowded reports whether that is as much as Caps.ConnUnreported. Any time.
	Crowded() bool
	// AwaitRoom asks for one call of RoomFree when there may be room again.
	AwaitRoom()
	// AwaitFull asks for one call of RoomGone when there is no room any more.
	AwaitFull()
	// Taken returns cost bytes of credit to the connection.
	Taken(cost int)
	// Assemble reserves n bytes of memory for a message that arrives in fragments, or
	// returns them if n is negative. It reports false if the budget is used up. Any
	// time.
	Assemble(n int) bool
	// Charge counts n bytes that arrived beside the messages and that the stream keeps
	// until Retire, or that it no longer keeps if n is negative. Any time.
	Charge(n int)
	// Resize returns the new size of a window that is renewed, at most most, whose reader
	// has taken so many bytes of credit in all, and whether the peer is so near that it need
	// not be renewed before half of it was used. Any time.
	Resize(window, most int, taken uint64) (size int, near bool)
	// Shrink returns from-to bytes of the stream's window. Any time.
	Shrink(from, to int)
	// Bundle says whether small messages should be delivered in bundles. Any time.
	Bundle(on bool)
	// Retire takes the stream out of the connection.
	Retire()
	// FeedingChanged is called when the result of Feeding may have changed after
	// Retire.
	FeedingChanged()
	// Pack returns m compressed by c, or m itself if that is no shorter. m stays the
	// caller's. Without the lock.
	Pack(m pool.Message, c pool.Compression) pool.Message
	// Unpack returns what a compressed message holds, at most most bytes, and takes m
	// over. Any time.
	Unpack(m pool.Message, most int) (pool.Message, error)
	// ParentErr is why the context that bounds the stream's life has ended, or nil. It asks
	// the program's context, which may take its time: the stream's lock is free.
	ParentErr() error
	// Timers is the queue for the stream's timers. Any time.
	Timers() *timers.Queue
}

// A Config is what a stream is made with. Streams may share one; nothing changes it.
type Config struct {
	Method      string
	Caps        frame.Caps
	InBuffer    int           // messages that In buffers; 0: none
	MaxBatch    int           // messages in a Batch
	IdleTimeout time.Duration // 0: never idle
	CountLate   bool          // what Receive returns counts as taken when the next is asked for
	NoReceive   bool          // the peer may send nothing
	NoSend      bool          // the peer receives nothing
	OwnConn     bool          // the connection is the stream's alone

	MaxReceive int // longest message that we receive, bytes
	MaxSend    int // longest message that the peer receives, bytes

	Window     int    // bytes that the peer may send unread, at first: see BeginWith
	MaxWindow  int    // limit of that as it grows
	SendLimit  int    // our own limit of bytes unread at the peer; 0: the peer's grants alone
	SendCredit uint64 // bytes that the peer has granted so far: see BeginWith
	MaxUnsent  int    // bytes that may be accepted and not written; 0: the credit alone bounds that

	Compression pool.Compression  // of what we send; zero is none
	Unpacks     pool.Compressions // what the peer unpacks
}

// granted reports whether receivers grant credit. Where they don't, pacing.go says
// what is different.
func (c *Config) granted() bool { return c.Caps.Pacing == frame.Granted }
