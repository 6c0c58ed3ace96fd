package frame

import (
	"errors"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Kind says what a frame is about. The kinds are those of the native wire;
// another protocol's session says the same things in them.
type Kind uint8

// The kinds of frames.
const (
	None   Kind = iota // nothing is complete yet: more bytes are needed
	Hello              // Settings, of the handshake
	Open               // opens Streams(): Method, Metadata, Deadline, Payload, Grants
	Accept             // answers an Open: Metadata, Payload, Grants
	Reject             // refuses an Open: Code, Reason, NotProcessed, Metadata
	Data               // Payload, First, Last
	EOS                // one direction's end: Code, Reason, Metadata
	Ended              // the application has received the end; Value: messages that it took
	Reset              // both directions end now: Code, Reason
	Stop               // nothing more will be read: Code
	Credit             // Value: bytes that may be sent in all; stream 0 is the connection
	Read               // Value: bytes of this connection read in all
	Ping               // Value is to come back in a Pong
	Pong
	GoAway // Value: last stream of the peer's that will be served; Code, Reason
	Skip   // a frame of an unknown type that a newer peer may send, to be ignored
	Reply  // the session's own: what Next returns is given back to Control, to be written
	// NewSettings has Settings, the complete new settings of the peer. For a stream Value
	// is by how much its credit changes with that, up or down. InitialCredit is below 4 GiB,
	// before and after.
	NewSettings
	// Finished is an event of the session's own: nothing is left to do. The connection ends
	// when what was flushed is written: at once if Deadline is 0, else with the peer's FIN,
	// which then is a clean end, or after Deadline.
	Finished
	// Ready is an event of the session's own: data may follow on a stream whose Accept has
	// said that it may not yet (Later).
	Ready
	// Freed is an event of the session's own: Session.Allows may say yes again.
	Freed
)

// String is the kind's name as the native wire's page writes it, such as "DATA".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "UNKNOWN"
}

var kindNames = [...]string{
	None: "NONE", Hello: "HELLO", Open: "OPEN", Accept: "ACCEPT", Reject: "REJECT", Data: "DATA", EOS: "EOS",
	Ended: "ENDED", Reset: "RESET", Stop: "STOP", Credit: "CREDIT", Read: "READ", Ping: "PING", Pong: "PONG",
	GoAway: "GOAWAY", Skip: "SKIP", Reply: "REPLY", NewSettings: "SETTINGS", Finished: "FINISHED",
	Ready: "READY", Freed: "FREED",
}

// A Grant is what an Open or Accept announces for one stream about its reader.
type Grant struct {
	Credit    uint64 // bytes that the peer may send on it, from its start
	Limit     uint64 // bytes that this side will have unread at the peer; 0: no limit of its own
	NoReceive bool   // the peer may send nothing at all
}

// UnknownTotal is the Total of a message whose pieces don't tell how long it will
// be.
const UnknownTotal = -1

// A Frame is one frame, decoded. A session fills the fields of its Kind; the
// others hold what an earlier frame left. Payload aliases the input, or memory
// of the session's, and is valid until the next call.
type Frame struct {
	Kind   Kind
	Stream uint64

	// Data: Payload is a piece of a message. First is set on its first piece,
	// Last on its last; Total is the whole length and known from the first
	// piece on, or UnknownTotal. A frame's payload may come in several pieces. Cost is
	// what the piece takes of the credit of its stream and connection, as the wire counts.
	Payload     []byte
	First, Last bool
	Packed      bool // with First: the message is compressed, see Session.Unpack
	Total       int
	Cost        int

	Value        uint64
	Code         status.Code
	Reason       string
	NotProcessed bool
	FollowsData  bool // Open, Accept: the first message of the stream is the request or reply
	Later        bool // Accept: nothing may be sent on a stream before its Ready. The session says so, not the peer
	Unary        bool // Open: one message each way, a call
	NoReply      bool // Open, with Unary: nobody waits for the reply
	Unsettled    bool // Open: the opener may not know our Settings yet

	Method   string
	Metadata metadata.MD
	Omitted  int           // Open, Accept, Reject, EOS: size of the metadata, as Size counts, if that was too large to keep
	Deadline time.Duration // time left; 0 is none
	Grants   []Grant
	Settings Settings

	// Compression and Unpacks belong to an Open and Accept, where Caps.StreamCompression
	// holds: how this side compresses the messages of the stream that it compresses, and how
	// the peer unpacks those of the stream.
	Compression pool.Compression
	Unpacks     pool.Compressions
	// Local, of a Reset or EOS that the peer has not sent: the session has ended the stream, or
	// the peer's half of it, and the peer may still send on it.
	Local bool

	held pool.Message // see Hold
}

// SetCost sets the Cost of a Data frame: its bytes, and overhead with the first of them.
func (f *Frame) SetCost(overhead int) {
	f.Cost = len(f.Payload)
	if f.First {
		f.Cost += overhead
	}
}

// frames is a pool of the frames that wait to be written: one for each open and answer.
var frames = sync.Pool{New: func() any { return new(Frame) }}

// GetFrame returns an empty frame of a kind from a pool. Its writer returns it with
// PutFrame.
func GetFrame(k Kind) *Frame {
	f := frames.Get().(*Frame)
	*f = Frame{Kind: k, Grants: f.Grants[:0]}
	return f
}

// PutFrame returns a frame to the pool that was written, or will not be.
func PutFrame(f *Frame) {
	f.held.Release()
	f.held = pool.Message{}
	frames.Put(f)
}

// Hold makes the bytes of m the Payload. PutFrame releases m.
func (f *Frame) Hold(m pool.Message) { f.held, f.Payload = m, m.Bytes() }

// Settings is what a side announces about itself in its Hello.
type Settings struct {
	MinVersion    uint64 // of the wire that it speaks, with MaxVersion; both 0: what the protocol has
	MaxVersion    uint64
	Checksum      bool
	MaxFragment   uint64            // largest payload of one Data frame, bytes
	MaxMessage    uint64            // bytes
	MaxStreams    uint64            // streams that the peer may have open
	MaxMetadata   uint64            // bytes, see Metadata.Size
	InitialCredit uint64            // bytes on a stream before it is accepted
	ConnCredit    uint64            // bytes on the connection
	Token         []byte            // for the other side's Authenticate
	Compression   pool.Compressions // of messages, that it unpacks

	RefusalMetadata bool // a Reject may carry Metadata
}

// A Refused is the error of a handshake that one side refused with a code and a reason.
type Refused struct {
	Code   status.Code
	Reason string // as sent to the peer, or by it
	Cause  error  // on the side that refused: it is not sent to the peer
}

func (e *Refused) Error() string {
	s := e.Code.String() + ": " + errtext.Quote(e.Reason)
	if e.Cause != nil {
		s += ": " + errtext.Of(e.Cause)
	}
	return s
}

// Unwrap returns the cause.
func (e *Refused) Unwrap() error { return e.Cause }

// ErrFault is returned by a step of a stream when what the peer sent resets that stream
// and nothing else: the connection goes on.
var ErrFault = errors.New("the stream was reset for what the peer sent")

// A Violation is what a peer did that ends its connection, found after decoding.
type Violation struct {
	Code   status.Code
	Detail string
}

func (v *Violation) Error() string { return v.Code.String() + ": " + v.Detail }
