package kernel

import (
	"errors"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/status"
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
	// ErrRefused: the peer has refused the stream. The status.StreamError says why. It is safe
	// to try again only if its NotProcessed is set: then no handler saw the open.
	ErrRefused = status.ErrRefused
	// ErrChannelInUse: In and Batches exclude each other on one stream.
	ErrChannelInUse = actor.ErrChannelInUse
	// ErrSlotUsed: the slot was used or cancelled before.
	ErrSlotUsed = actor.ErrSlotUsed
	// ErrTooLarge: the message is longer than the peer takes, or than the stream's MaxSend.
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
