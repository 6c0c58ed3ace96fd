package kernel

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Stream carries messages in both directions, in order and with flow control. Its two
// halves end separately: the receiving half when the peer sends no more, the sending half
// when this side does. Every method may be called from any goroutine.
//
// A stream can be read by Receive and All, by the channel In, or by the channel Batches.
// In and Batches exclude each other. Receive and All read through the channel that is in
// use. Every message goes to one reader.
type Stream struct{ c core }

// accept accepts the offer that the stream came by, if its handler has not used the stream
// before.
func (s *Stream) accept() {
	if p := s.c.acceptOnUse.Load(); p != nil {
		p.acceptOnUse(s)
	}
}

// Method is the method that the stream was opened with.
func (s *Stream) Method() string { return s.c.method }

// ID is the stream's number on the wire, 0 as long as it has none.
func (s *Stream) ID() uint64 { return s.c.ID() }

// Conn is the stream's connection.
func (s *Stream) Conn() *Conn { return s.c.conn }

// Request waits for the request and returns it; it belongs to the caller. The request is the
// message that came with the open (OpenOptions.Request). If none did, it is the first message
// of the stream, as it is with a call. Request gives it once: what Request returns next, and
// on the side that has opened the stream, is what Receive would return.
//
// Request is no use of the stream: it does not accept it, so the header can still be set
// and the offer taken. Receive, All, In and Batches accept the stream, and don't give a
// request that came with the open.
func (s *Stream) Request(ctx context.Context) (pool.Message, error) {
	if s.c.acceptOnUse.Load() != nil {
		s.c.life.Or(lifeRequested)
	}
	if m, ok := s.c.TakeRequest(); ok {
		return m, nil
	}
	return s.c.Receive(ctx)
}

// OnlyRequest is Request for a method that takes one message, as package rpc's unary handlers do.
// If another message has come, or comes while the stream is open, its opener takes the method for
// another kind: the stream is reset with status.Unimplemented, and its Context ends. It does
// not wait for the end of the opener's half. It must come before any other receive.
func (s *Stream) OnlyRequest(ctx context.Context) (pool.Message, error) {
	if s.c.acceptOnUse.Load() != nil {
		s.c.life.Or(lifeRequested)
	}
	return s.c.ReceiveOnly(ctx)
}

// Metadata returns the metadata that came with the open, on both sides.
func (s *Stream) Metadata() metadata.MD {
	if x := s.c.x.Load(); x != nil {
		return x.metadata
	}
	return nil
}

// SetHeader adds metadata to the header, which goes with the acceptance, and so with the
// reply of a call. A handler must call it before its first use of the stream, which Request
// is not; middleware and handler may each add some. The opener gets the header from Accepted
// or CallOptions.Header. If the handler then refuses the stream, it is a part of
// StreamError.Details. Errors: ErrHeaderSent after the acceptance and on the opener's side,
// ErrMetadataTooLarge, ErrMetadataKey, and ErrNotSupported if the protocol carries no
// metadata. A handler that has taken the Offer calls Offer.SetHeader.
func (s *Stream) SetHeader(md metadata.MD) error {
	p := s.c.acceptOnUse.Load()
	if p == nil {
		return ErrHeaderSent
	}
	return p.setHeader(md)
}

// SetTrailer sets the metadata that the peer gets with the end of this side's half, from
// Trailer or CallOptions.Trailer. It must be called before CloseSend, or before the handler
// returns. Errors: ErrMetadataTooLarge, ErrMetadataKey, and ErrNotSupported if the protocol's
// ends carry no metadata; the protocol's own key, Caps.Unread, can be set all the same.
func (s *Stream) SetTrailer(md metadata.MD) error {
	own := len(md) == 1 && md[0].Key == s.c.conn.caps.Unread // is never sent
	if !own && !s.c.endsWithStatus() {
		return ErrNotSupported
	}
	if err := s.c.conn.checkMetadata(md, 0); err != nil {
		return err
	}
	s.c.more().trailer.Store(&md)
	return nil
}

// Trailer returns the metadata that came with the end of the peer's half, nil before that.
func (s *Stream) Trailer() metadata.MD { return s.c.Trailer() }

// Accepted waits until the peer has accepted the stream, and returns the reply and the
// header that came with that; the reply belongs to the caller. If the peer has refused the
// stream the error is ErrRefused. Data can be sent without waiting. The end of ctx ends
// the wait and not the stream. On the accepting side Accepted returns at once.
func (s *Stream) Accepted(ctx context.Context) (reply pool.Message, header metadata.MD, err error) {
	if !s.c.opener {
		return pool.Message{}, nil, nil
	}
	return s.c.Answer(ctx)
}

// Offer returns the offer that the stream came by, for a Handler that answers it itself. The
// offer is then answered and ended as one of Handlers.HandleOffer is. Only the handler and
// its middleware may call Offer, before they return. Offer returns nil if the stream was
// accepted or Offer was called before.
func (s *Stream) Offer() *Offer {
	o := s.c.acceptOnUse.Load()
	if o == nil {
		return nil
	}
	var taken *Offer
	o.acceptOnce.Do(func() {
		taken = o
		o.taken.Store(true)
		s.c.acceptOnUse.Store(nil)
	})
	return taken
}

// Context returns a context that ends with the stream, or when the handler of Handlers.Handle
// returns. It carries the values of the context that the stream was opened with. Its error
// and cause are context.DeadlineExceeded or context.Canceled; the stream's Err says more. The
// peer's Close and CloseReceive do not end it: they close SendDone.
func (s *Stream) Context() context.Context { return (*streamContext)(s) }

// In returns a channel of the messages from the peer. It is closed after the last message
// if the peer has ended its half or the stream has failed; Err tells which. Every call
// returns the same channel. On a write-only stream it is closed.
//
// The channel has a small buffer: StreamOptions.InBuffer messages, and at most 16 KiB or
// one longer message. A message's credit returns to the peer when the message enters the
// buffer.
func (s *Stream) In() <-chan pool.Message {
	s.accept()
	return s.c.In()
}

// Batches is In for several messages at a time: as many as have arrived, at most
// StreamOptions.MaxBatch.
func (s *Stream) Batches() <-chan *actor.Batch {
	s.accept()
	return s.c.Batches()
}

// Out returns a channel of the messages to the peer. The stream receives from it only while
// it has credit. A send completes when the stream has the message, not when the peer has
// it. The stream never closes Out. Once the sending half has ended nothing receives from
// it, so select on SendDone too:
//
//	select {
//	case s.Out() <- m:
//	case <-s.SendDone():
//		m.Release()
//		return s.Err()
//	}
//
// A select with a default may choose the default although there is credit, while the stream
// is busy with an earlier message: use TrySend or Writable for that. A message that is
// longer than the peer takes, or than MaxSend, aborts the stream with status.TooLarge, one with
// a compression of its own that the peer does not unpack with status.Unimplemented. Closing Out
// is CloseSend; do so only if nobody else sends on it.
//
// The first call starts a goroutine, which ends with the sending half.
func (s *Stream) Out() chan<- pool.Message {
	s.accept()
	return s.c.Out()
}

// Writable returns a channel that holds a slot, the right to send one message, while the
// stream has credit. It is closed when the sending half ends. A select with a default
// chooses the default only if there is no credit or another goroutine has the slot. A slot must
// be used or cancelled; the next one comes after that.
func (s *Stream) Writable() <-chan actor.Slot {
	s.accept()
	return s.c.Writable()
}

// Idle returns a channel that holds a time once the stream has been idle for
// StreamOptions.IdleTimeout: no message has arrived or been taken, and nothing was received
// from Idle. The time is that of the last message from the peer, or of the stream's start.
// It is withdrawn when a message arrives or is taken, so what Idle gives is never out of
// date. This side's sends and keepalive don't count. Without an IdleTimeout the channel is
// nil. It is not closed when the stream ends.
func (s *Stream) Idle() <-chan time.Time {
	s.accept()
	return s.c.Idle()
}

// GoingAway returns a channel that is closed when the stream's connection takes no new
// streams: see Conn.GoingAway. Where each stream has a connection of its own it is that of
// the connection with the calls.
func (s *Stream) GoingAway() <-chan struct{} {
	if c := s.c.conn; c.isOneStream() {
		return c.parent.goingAway
	}
	return s.c.conn.goingAway
}

// SendDone is closed when nothing more can be sent: after CloseSend, Close or Abort on this
// side, when the peer reads no more or has reset the stream, or when the connection is
// lost.
func (s *Stream) SendDone() <-chan struct{} { return s.c.SendDone() }

// Done is closed when both halves have ended on both sides. Messages that have arrived can
// still be received.
func (s *Stream) Done() <-chan struct{} { return s.c.Done() }

// Err returns why the stream failed, or nil as long as it has not. After the end of a
// stream nil means that both sides have ended it in order. Where In or Batches was closed before
// all that had arrived was taken, because the context of Open has ended or this side has closed
// the connection, Err says so; the rest is left for Receive.
func (s *Stream) Err() error { return s.c.Err() }

// Discarded is the number of messages that this side has sent and the peer's application
// has not read. It is known when the stream has ended in order.
func (s *Stream) Discarded() int { return s.c.Discarded() }

// Send sends m. It waits for credit, not for the peer: a nil error is no delivery. If it
// succeeds it has taken over m. If it fails nothing was sent, and m still belongs to the
// caller. The end of ctx ends the wait and not the stream. If m is to be compressed Send
// does that first. Errors: ErrTooLarge, ErrSendClosed, ErrStopped, ErrNotReadable,
// ErrNotAccepted, ErrNotSupported for a compression of m's own that the peer does not
// unpack, a status.StreamError, or ctx's.
func (s *Stream) Send(ctx context.Context, m pool.Message) error {
	s.accept()
	return s.c.Send(ctx, m)
}

// TrySend is Send without waiting: it fails with ErrWouldBlock if there is no credit now.
// One byte of credit is enough for a message of any length.
func (s *Stream) TrySend(m pool.Message) error {
	s.accept()
	return s.c.TrySend(m)
}

// SendCopy is Send of a copy of p, which stays the caller's. On the native protocol it is the
// fastest way to send small messages, of up to 496 bytes: no message is made of each, and many
// are written at once as they are.
func (s *Stream) SendCopy(ctx context.Context, p []byte) error {
	s.accept()
	return s.c.SendCopy(ctx, p)
}

// ReceiveBatch waits for the next message and returns all that have arrived, in order, up to
// 64 KiB of them or one longer message. They are valid until the next call of ReceiveBatch, which
// uses their memory again: what is kept is to be copied, and nobody may write to them. Only one
// goroutine at a time may call it. It is the fastest way to receive small messages. Errors are
// those of Receive, and ErrChannelInUse once In or Batches is in use.
func (s *Stream) ReceiveBatch(ctx context.Context) ([][]byte, error) {
	s.accept()
	return s.c.ReceiveBatch(ctx)
}

// Receive waits for the next message and returns it; the message belongs to the caller. The
// error is io.EOF when the peer has ended its half and everything before that was
// received, ErrClosed after CloseReceive, the stream's error, or ctx's. The end of ctx ends
// the wait and not the stream.
func (s *Stream) Receive(ctx context.Context) (pool.Message, error) {
	s.accept()
	return s.c.Receive(ctx)
}

// All yields every message and then, if the stream did not end in order, the error. Each
// message belongs to the loop's body, which may send it or Release it.
func (s *Stream) All(ctx context.Context) iter.Seq2[pool.Message, error] {
	return func(yield func(pool.Message, error) bool) {
		for {
			m, err := s.Receive(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// CloseSend ends the sending half, after everything that was sent before. A second call does
// nothing. It fails with ErrNotSupported if the protocol can't end one half alone, and with
// ErrNotAccepted before the stream's offer is accepted.
func (s *Stream) CloseSend() error {
	s.accept()
	return s.c.CloseSend(status.OK, "", s.c.trailer())
}

// CloseReceive ends the receiving half: unread messages are dropped, the peer's sends fail
// with ErrStopped, and Receive fails with ErrClosed. code is on the wire, for Conn.Trace; no
// method of the peer's returns it.
func (s *Stream) CloseReceive(code status.Code) {
	s.accept()
	s.c.CloseReceive(code)
}

// Close ends both directions in order. What this side has sent is delivered, and then the
// end: the peer's readers see that as io.EOF, or as a closed channel without an error. What
// has arrived and is unread, and what the peer still sends, is dropped. On this side whoever
// waits to receive gets ErrClosed, whoever waits to send ErrSendClosed, and the channels are
// closed. The peer's sends fail with ErrStopped, where the protocol can say that (Seastar's
// can't). To go on receiving, use CloseSend.
//
// Close waits until the peer's application has received the end, as far as the protocol
// tells, and the peer's half has ended. That ends by itself where the peer can be told, and
// else when its program ends it. When ctx ends Close aborts the stream. Close returns the
// stream's error, nil if it has ended in order. It may be called several times and at once.
// Before the stream's offer is accepted it does nothing and returns ErrNotAccepted.
func (s *Stream) Close(ctx context.Context) error {
	s.accept()
	err := s.c.Close(ctx)
	if err != nil {
		s.c.closeOwnConn()
	}
	return err
}

// Abort resets the stream: both halves end at once, and the peer is told code and reason.
// Messages that have arrived can still be received, those that are not in a channel's
// buffer by Receive. Messages that were not written yet are dropped. status.OK becomes
// status.Unknown.
func (s *Stream) Abort(code status.Code, reason string) {
	s.c.abort(cmp.Or(code, status.Unknown), reason, nil)
	s.c.StopFeeding()
}

// AbortCause is Abort for a failure that this side has found: the status.StreamError that Err
// returns has cause as its Cause. The peer is told code and reason alone. Unlike Abort,
// AbortCause does not close the channels of a stream that has ended before.
func (s *Stream) AbortCause(code status.Code, reason string, cause error) {
	s.c.abort(cmp.Or(code, status.Unknown), reason, cause)
}

// discard releases the unread messages of a stream that is over.
func (s *Stream) discard() {
	for {
		m, err := s.Receive(context.Background())
		if err != nil {
			return
		}
		m.Release()
	}
}

// streamContext is a Stream as its context. An idle stream's context costs nothing.
type streamContext Stream

// Deadline implements context.Context.
func (c *streamContext) Deadline() (time.Time, bool) {
	if x := c.c.x.Load(); x != nil && !x.deadline.IsZero() && !x.deadlineOff.Load() {
		return x.deadline, true
	}
	return time.Time{}, false
}

// Done implements context.Context.
func (c *streamContext) Done() <-chan struct{} { return c.c.ContextDone() }

// Err implements context.Context.
func (c *streamContext) Err() error {
	over, err := c.c.ContextOver()
	switch {
	case !over:
		return nil
	case errors.Is(err, &status.StreamError{Code: status.DeadlineExceeded}):
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// Value implements context.Context.
func (c *streamContext) Value(key any) any {
	if key == (streamKey{}) {
		return (*Stream)(c)
	}
	if x := c.c.x.Load(); x != nil && x.parent.of != nil {
		return x.parent.Value(key)
	}
	return nil
}

// streamKey is the key of a stream in its context's values.
type streamKey struct{}

// FromContext returns the stream whose Context ctx is, or is derived from, or nil.
func FromContext(ctx context.Context) *Stream {
	s, _ := ctx.Value(streamKey{}).(*Stream)
	return s
}
