package kernel

import (
	"errors"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
)

// Sentinels name a state that a caller can run into. Test for them with
// errors.Is; what is returned may say more.
var (
	// ErrClosed: the stream, or the half in question, was ended on this side. It
	// is net.ErrClosed too.
	ErrClosed = actor.ErrClosed
	// ErrSendClosed: the sending half has ended by CloseSend or Close.
	ErrSendClosed = actor.ErrSendClosed
	// ErrStopped: the peer reads no more of this stream, for one because its handler
	// has returned. Whether that is a failure, Receive and Err tell.
	ErrStopped = actor.ErrStopped
	// ErrWouldBlock: there is no credit, or no room in the connection's queue.
	ErrWouldBlock = actor.ErrWouldBlock
	// ErrNoRoom: the stream has credit, but the connection has none, or its queue
	// is full. It is ErrWouldBlock too.
	ErrNoRoom = actor.ErrNoRoom
	// ErrNotReadable: the peer opened or accepted the stream as write-only.
	ErrNotReadable = actor.ErrNotReadable
	// ErrRefused: the peer refused the stream; the StreamError says why, and by
	// NotProcessed whether no handler saw it. Only then is it safe to try again.
	ErrRefused = actor.ErrRefused
	// ErrChannelInUse: In and Batches exclude each other on one stream.
	ErrChannelInUse = actor.ErrChannelInUse
	// ErrSlotUsed: a slot can be used or cancelled once.
	ErrSlotUsed = actor.ErrSlotUsed
	// ErrTooLarge: the message is longer than the peer takes.
	ErrTooLarge = actor.ErrTooLarge
	// ErrMetadataTooLarge: the metadata is larger than the peer takes.
	ErrMetadataTooLarge = actor.ErrMetadataTooLarge
	// ErrMetadataKey: a key of the metadata is empty, longer than 255 bytes, or not
	// made of lower-case letters, digits, '-', '_' and '.'.
	ErrMetadataKey = errors.New("sluice: illegal metadata key")
	// ErrNotSupported: the connection's protocol can't carry this.
	ErrNotSupported = actor.ErrNotSupported
	// ErrGoingAway: the connection takes no new streams.
	ErrGoingAway = conn.ErrGoingAway
	// ErrTooManyStreams: as many streams are open as the peer allows.
	ErrTooManyStreams = conn.ErrTooManyStreams
	// ErrLimits: a limit in the options is out of range.
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

// A StreamError says why one stream ended other than in order; its connection
// lives on, unless the code is CodeConnectionLost. Its fields are Stream, the number
// on the wire; Method; Code; Remote, the peer decided it; Refused, the answer to the
// open was no; NotProcessed, no handler saw it, so that it is safe to try again;
// Reason, for people; Details, the trailer that the peer's handler set; Cause.
// errors.Is(err, &StreamError{Code: c}) asks for a code alone, and
// context.DeadlineExceeded and context.Canceled are found where the code says so.
type StreamError = actor.StreamError

// A ConnError ends a connection and every stream on it, or says why there is none.
// Its fields are Addr, Op ("dial", "handshake", "read", "write", "keepalive",
// "close"), Code, Remote (the peer ended or refused it) and Err. errors.Is(err,
// &ConnError{Code: c}) asks for a code alone: a server that let a client not in gave
// CodeUnauthenticated, or what its Authenticate chose. Unwrap leads to the cause: what
// the system said, or a ProtocolError.
type ConnError = conn.Error

// A ProtocolError is the cause when a peer broke the rules of the wire.
type ProtocolError = frame.ProtocolError

// A HandlerError is what a handler returns to end its stream with a status of
// its choice; CodeOK is no status of a failure, and becomes CodeUnknown. Any other error
// is CodeUnknown with the error's text. What a program is to know beside the code goes
// into Stream.SetTrailer before that: the peer has it in StreamError.Details, also where
// it made a call.
type HandlerError struct {
	Code   Code
	Reason string // goes to the peer
}

func (e *HandlerError) Error() string { return "sluice: " + e.Code.String() + ": " + e.Reason }

// StatusOf is the status that a handler's error ends its stream with: the code and
// reason of a HandlerError or StreamError; of any other, CodeUnknown and its text; of
// nil, CodeOK.
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

// failing is the code of a failure: CodeOK, which may just be no code, is none.
func failing(c Code) Code {
	if c == CodeOK {
		return CodeUnknown
	}
	return c
}
