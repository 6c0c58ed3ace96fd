package actor

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/sluicerpc/sluice/internal/errtext"
)

// Sentinel errors. Test for them with errors.Is: what is returned may say more.
var (
	// ErrClosed: this side has ended the stream, or this half of it.
	ErrClosed = errtext.Errorf("sluice: %w", net.ErrClosed)
	// ErrSendClosed: CloseSend or Close has ended the sending half.
	ErrSendClosed = fmt.Errorf("%w: sending half", ErrClosed)
	// ErrStopped: the peer reads no more; nothing failed.
	ErrStopped = errors.New("sluice: peer stopped reading")
	// ErrWouldBlock: the stream or its connection has no credit, or the connection's
	// queue is full.
	ErrWouldBlock = errors.New("sluice: operation would block: no send credit")
	// ErrNoRoom: the stream has credit, but its connection has none, or the connection's
	// queue is full. It is ErrWouldBlock too.
	ErrNoRoom = fmt.Errorf("%w: the connection is busy", ErrWouldBlock)
	// ErrNotReadable: the peer opened the stream as write-only.
	ErrNotReadable = errors.New("sluice: peer does not receive on this stream")
	// ErrNotAccepted: the stream is of an offer that was not accepted yet.
	ErrNotAccepted = errors.New("sluice: offer not accepted yet")
	// ErrChannelInUse: a stream is read by In or by Batches, not by both.
	ErrChannelInUse = errors.New("sluice: the other receive channel of this stream is in use")
	// ErrSlotUsed: a slot can be used or cancelled once.
	ErrSlotUsed = errors.New("sluice: slot already used or cancelled")
	// ErrTooLarge: the message is longer than the peer accepts.
	ErrTooLarge = errors.New("sluice: message too large")
	// ErrMetadataTooLarge: the metadata is larger than the peer accepts.
	ErrMetadataTooLarge = errors.New("sluice: metadata too large")
	// ErrNotSupported: the connection's protocol can't do this.
	ErrNotSupported = errors.New("sluice: not supported by the connection's protocol")
)

// NoEnd returns err, but hides io.EOF from errors.Is: a failure must not look like the end
// of a stream in order.
func NoEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // hidden on purpose
	}
	return err
}
