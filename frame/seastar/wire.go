package seastar

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

const name = "seastar"

// magic is what each side sends first.
const magic = "SSTARRPC"

// Features that a hello names.
const (
	featCompress        = 0
	featTimeout         = 1
	featConnectionID    = 2
	featStreamParent    = 3
	featIsolation       = 4
	featHandlerDuration = 5

	// featNoLinger is an extension of sluice's; receivers skip features that they don't
	// know. Where both sides send it, they close a stream's connection as soon as both
	// directions have ended.
	featNoLinger = 0x6c756973
)

// Lengths in bytes. All numbers on the wire are little-endian.
const (
	timeoutLen  = 8
	requestLen  = 20 // verb, message id, payload length
	responseLen = 12 // message id, payload length
	durationLen = 4
	streamLen   = 4
	maxHeader   = timeoutLen + requestLen

	wholeMax = 4 << 10  // payloads up to here are handed on in one piece
	maxText  = 16 << 10 // of an exception; the rest is dropped
)

// overhead is what a message costs of a window, beside its length.
const overhead = 32

// sendWindow is what one of Seastar's sinks may have in flight, bytes.
const sendWindow = 100 << 10

const (
	endOfStream = 0xffffffff // instead of a length: the stream ends
	notMeasured = 0xffffffff // instead of a handler's duration: none
)

// Kinds of exceptions.
const (
	exceptionUser        = 0
	exceptionUnknownVerb = 1
)

// Keys of metadata that stand for features of this protocol.
const (
	// NoWait marks a call without a reply (Seastar's no_wait): in a client's Open, or
	// in a server's Accept or end, where it keeps the reply from being written. The
	// value does not matter.
	NoWait = "seastar-no-wait"
	// HandlerMicros is in a reply's trailers: how long the handler took, in
	// microseconds, if the server has measured it.
	HandlerMicros = "seastar-handler-us"
	// Unread is a trailer of a stream's half that nobody at the peer reads: the call that
	// brought the stream has been answered, and names no source. The value does not
	// matter. The end of such a half is written when the application was handed the
	// peer's. A client of Seastar's that closes the connection before it has read what
	// came resets it, and what it had sent is lost.
	Unread = "seastar-unread"
)

func failf(c status.Code, format string, args ...any) error {
	return &status.ProtocolError{Proto: name, Code: c, Detail: fmt.Sprintf(format, args...)}
}

// caps is what both kinds of connections carry.
var caps = frame.Caps{
	Name: name, Pacing: frame.Unpaced, HalfClose: true, Early: true, Verbs: true, StreamsByID: true, FixedValues: true,
	Overhead: overhead, LeastPiece: overhead + 1, SendWindow: sendWindow, MaxFragment: 1 << 30, MaxStream: 1 << 62,
	MaxInline: 16 << 10, LongInline: true, MaxGroup: 256,
	Unread:   Unread,
	IdleConn: never, // a client of Seastar's does not connect again
}

// never is a time that is not reached, and that can be added to others.
const never = time.Duration(1 << 60)

// maxTimeLeft is the longest time left that is sent or accepted, so that no sum with it
// overflows.
const maxTimeLeft = 365 * 24 * time.Hour

// millis is a time left as a request carries it, in milliseconds. It is never 0, which
// means none.
func millis(d time.Duration) uint64 {
	return uint64((min(d, maxTimeLeft) + time.Millisecond - 1) / time.Millisecond)
}

// timeLeft is the inverse of millis.
func timeLeft(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxTimeLeft/time.Millisecond))) * time.Millisecond
}

// micros is a duration as a response carries it, in microseconds.
func micros(d time.Duration) uint32 {
	if us := d / time.Microsecond; us >= 0 && us < math.MaxUint32 {
		return uint32(us)
	}
	return notMeasured
}

func appendException(b []byte, kind uint32, text string) []byte {
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// exception decodes what was kept of an exception of n bytes into f, whose Code
// and Reason it sets. notProcessed says that no handler saw the call.
func exception(p []byte, n int64, f *frame.Frame) (notProcessed bool) {
	f.Code, f.Reason = status.Protocol, "an exception that can't be decoded"
	if len(p) < 8 {
		return false
	}
	kind, length := binary.LittleEndian.Uint32(p), int64(binary.LittleEndian.Uint32(p[4:]))
	text := p[8:]
	if length > n-8 {
		return false
	}
	switch kind {
	case exceptionUser:
		f.Code, f.Reason = status.Unknown, string(text[:min(length, int64(len(text)))])
	case exceptionUnknownVerb:
		f.Code, f.Reason = status.Unimplemented, "unknown verb"
		if length == 8 {
			f.Reason = fmt.Sprintf("unknown verb %d", binary.LittleEndian.Uint64(text))
		}
		return true
	default:
		f.Code, f.Reason = status.Unknown, fmt.Sprintf("unknown exception of kind %d", kind)
	}
	return false
}

// exceptionText is the text of an exception for a code and a reason.
func exceptionText(c status.Code, reason string) string {
	switch {
	case c == status.Unknown && reason != "":
		return reason
	case reason == "":
		return c.String()
	}
	return c.String() + ": " + reason
}
