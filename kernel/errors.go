package kernel

import (
	"errors"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
)

// Errors that a program may want to tell apart. Test for them with errors.Is: what is
// returned wraps them.
var (
	// ErrClosed: this side has ended the stream, or the half in question, or has closed
	// the client. It is net.ErrClosed too.
	ErrClosed = actor.ErrClosed
	// ErrSendClosed: the sending half has ended by CloseSend or Close.
	ErrSendClosed = actor.ErrSendClosed
	// ErrStopped: the peer reads no more of this stream, for example because its handler
	// has returned. Receive and Err tell whether that is a failure.
	ErrStopped = actor.ErrStopped
	// ErrWouldBlock: TrySend would have to wait for credit, or for room in the
	// connection's queue.
	ErrWouldBlock = actor.ErrWouldBlock
	// ErrNoRoom: the stream has credit, but the connection has none, or its queue
	// is full. It is ErrWouldBlock too.
	ErrNoRoom = actor.ErrNoRoom
	// ErrNotReadable: the peer opened or accepted the stream as write-only.
	ErrNotReadable = actor.ErrNotReadable
	// ErrNotAccepted: the stream is of an offer that was not accepted yet, so nothing can
	// be sent on it.
	ErrNotAccepted = actor.ErrNotAccepted
	// ErrRefused: the peer has refused the stream. The StreamError says why. It is safe
	// to try again only if its NotProcessed is set: then no handler saw the open.
	ErrRefused = actor.ErrRefused
	// ErrChannelInUse: In and Batches exclude each other on one stream.
	ErrChannelInUse = actor.ErrChannelInUse
	// ErrSlotUsed: the slot was used or cancelled before.
	ErrSlotUsed = actor.ErrSlotUsed
	// ErrTooLarge: the message is longer than the peer takes.
	ErrTooLarge = actor.ErrTooLarge
	// ErrMetadataTooLarge: the metadata is larger than the peer takes.
	ErrMetadataTooLarge = actor.ErrMetadataTooLarge
	// ErrMetadataKey: a key of the metadata is empty, longer than 255 bytes, or not
	// made of lower-case letters, digits, '-', '_' and '.'.
	ErrMetadataKey = errors.New("sluice: illegal metadata key")
	// ErrNotSupported: the protocol can't carry this.
	ErrNotSupported = actor.ErrNotSupported
	// ErrGoingAway: the connection takes no new streams.
	ErrGoingAway = conn.ErrGoingAway
	// ErrTooManyStreams: as many streams are open as the peer allows.
	ErrTooManyStreams = conn.ErrTooManyStreams
	// ErrLimits: an option is out of range.
	ErrLimits = conn.ErrLimits
	// ErrAnswered: the offer was accepted or rejected before.
	ErrAnswered = errors.New("sluice: offer already answered")
	// ErrHeaderSent: the stream was accepted before its header was set.
	ErrHeaderSent = errors.New("sluice: header already sent")
	// ErrNoReply: the call's stream ended without a message.
	ErrNoReply = errors.New("sluice: call ended without a reply")
	// ErrServerClosed is what Serve returns after Shutdown or Close.
	ErrServerClosed = errors.New("sluice: server closed")
)

// A StreamError says why a stream has failed. Its connection stays open unless the code is
// CodeConnectionLost. The fields are:
//   - Stream, the number on the wire, and Method;
//   - Code, and Reason, a text for people;
//   - Remote: the peer decided it;
//   - Refused: the peer refused the open;
//   - NotProcessed: no handler saw the open, so it is safe to try again;
//   - Details, the trailer that the peer's handler set;
//   - Cause, an error found on this side.
//
// errors.Is(err, &StreamError{Code: c}) compares the code alone. errors.Is also finds
// context.DeadlineExceeded and context.Canceled if the code is theirs.
type StreamError = actor.StreamError

// A ConnError says why a connection has ended, and all its streams with it, or why it could
// not be made. The fields are Addr; Op, one of "listen", "accept", "dial", "handshake",
// "open", "read", "write", "keepalive" and "close"; Code; Remote: the peer ended or refused
// the connection; and Err.
//
// errors.Is(err, &ConnError{Code: c}) compares the code alone. A server that refuses a
// client gives CodeUnauthenticated or the code of its Authenticate. Unwrap returns the
// cause: the system's error, or a ProtocolError.
type ConnError = conn.Error

// A ProtocolError is the cause of a ConnError if the peer has broken the protocol's rules.
type ProtocolError = frame.ProtocolError

// A HandlerError is returned by a handler to end its stream with a code of its choice. The
// peer finds Details in StreamError.Details, behind the metadata of Stream.SetTrailer, on
// protocols whose ends carry metadata. Details that can't be sent, because they are too
// large or have an illegal key, are logged and left out. Offer.Reject carries none.
type HandlerError struct {
	Code    Code     // CodeOK becomes CodeUnknown
	Reason  string   // is sent to the peer
	Details Metadata // is sent to the peer
}

func (e *HandlerError) Error() string {
	return "sluice: " + e.Code.String() + ": " + errtext.Trim(e.Reason)
}

// StatusOf returns the code and reason that a stream ends with when its handler returns err:
// those of a HandlerError or StreamError, CodeUnknown and the text of any other error, and
// CodeOK for nil.
func StatusOf(err error) (Code, string) {
	if err == nil {
		return CodeOK, ""
	}
	var he *HandlerError
	if errors.As(err, &he) {
		return failing(he.Code), he.Reason
	}
	var se *StreamError
	if errors.As(err, &se) {
		return failing(se.Code), se.Reason
	}
	return CodeUnknown, err.Error()
}

// failing makes CodeOK, which is not the code of a failure, CodeUnknown.
func failing(c Code) Code {
	if c == CodeOK {
		return CodeUnknown
	}
	return c
}
