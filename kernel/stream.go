package kernel

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// A Stream is one ordered, flow-controlled, full-duplex sequence of messages.
// Its two halves end separately: In when the peer has no more to say, Out when
// we have none. Every method may be called from any goroutine.
//
// A stream can be read in three ways: by Receive and All, by the channel In, by
// the channel Batches. The first use of a channel fixes it; Receive and All then
// read through it. However it is read, every message goes to one reader.
type Stream struct{ c core }

// accept answers the offer that the stream came by, if a handler has not had it
// answered yet.
func (s *Stream) accept() {
	if p := s.c.acceptOnUse.Load(); p != nil {
		p.acceptOnUse(s)
	}
}

// Method is what was opened.
func (s *Stream) Method() string { return s.c.method }

// ID is the stream's number on the wire, 0 while it has none yet.
func (s *Stream) ID() uint64 { return s.c.ID() }

// Conn is the stream's connection.
func (s *Stream) Conn() *Conn { return s.c.conn }

// Request returns what travelled with the open, on both sides. It belongs to the
// stream, which leaves it to the garbage collector: Share or Clone it to keep it
// as one of your own, or Release it when nobody will look at it again.
func (s *Stream) Request() Message {
	if x := s.c.x.Load(); x != nil {
		return x.request
	}
	return Message{}
}

// Metadata returns what travelled with the open, on both sides.
func (s *Stream) Metadata() Metadata {
	if x := s.c.x.Load(); x != nil {
		return x.metadata
	}
	return nil
}

// SetHeader sets what the opener gets with the acceptance. A handler must call
// it before it sends, receives or returns; after that it fails with
// ErrHeaderSent, as it does on the opener's side. Other errors are
// ErrMetadataTooLarge and ErrMetadataKey.
func (s *Stream) SetHeader(md Metadata) error {
	p := s.c.acceptOnUse.Load()
	if p == nil {
		return ErrHeaderSent
	}
	return p.setHeader(md)
}

// SetTrailer sets what the peer gets with the end of our half. It must be called
// before CloseSend, or before the handler returns. It fails with
// ErrMetadataTooLarge if the peer does not take so much, with ErrMetadataKey, and with
// ErrNotSupported if the protocol's ends carry nothing.
func (s *Stream) SetTrailer(md Metadata) error {
	if !s.c.conn.caps.Status && !s.c.unary {
		return ErrNotSupported
	}
	if err := s.c.conn.checkMetadata(md, 0); err != nil {
		return err
	}
	s.c.more().trailer.Store(&md)
	return nil
}

// Trailer returns what came with the end of the peer's half, nil before that.
func (s *Stream) Trailer() Metadata { return s.c.Trailer() }

// Accepted waits until the peer has accepted the stream, and returns what came
// with that; the reply belongs to the caller. A refused stream gives an error that is
// ErrRefused. Data may be sent before. A ctx that ends gives up this wait, not
// the stream. On the accepting side it returns at once.
func (s *Stream) Accepted(ctx context.Context) (reply Message, header Metadata, err error) {
	if !s.c.opener {
		return Message{}, nil, nil
	}
	return s.c.Answer(ctx)
}

// Context returns a context that ends with the stream, or with the handler of
// Server.Handle, and carries the values of the one that the stream was opened with. Its error, and
// its cause, is context.DeadlineExceeded or context.Canceled; the stream's Err
// says more.
func (s *Stream) Context() context.Context { return (*streamContext)(s) }

// In returns the messages from the peer. It is closed, after the last message
// has been taken from it, when the peer ends its half or the stream fails; Err
// tells the two apart. A message counts as taken, and its credit returns to the
// peer, when it leaves the mailbox for In's small buffer (StreamOptions.InBuffer),
// which never holds more than 16 KiB, or one larger message. Every call returns
// the same channel. On a write-only stream it is closed.
func (s *Stream) In() <-chan Message {
	s.accept()
	return s.c.In()
}

// Batches returns what In returns, as many messages at a time as have arrived,
// up to StreamOptions.MaxBatch.
func (s *Stream) Batches() <-chan *Batch {
	s.accept()
	return s.c.Batches()
}

// Out returns the way to the peer. The stream takes a message from it only while
// it has credit, so a send waits for credit; it completes when the message has
// been handed over, in order, not when the peer has it. Once the sending half
// has ended nothing takes from Out, and the stream never closes it, so give each
// send a way out:
//
//	select {
//	case s.Out() <- m:
//	case <-s.SendDone():
//		m.Release()
//		return s.Err()
//	}
//
// A select with a default may decline although there is credit, while the
// stream is busy with an earlier message: use TrySend or Writable for that. A
// message that is larger than the peer takes aborts the stream with
// CodeTooLarge. Closing Out means CloseSend; only a sole sender may do it.
//
// The first call starts a goroutine that ends with the sending half.
func (s *Stream) Out() chan<- Message {
	s.accept()
	return s.c.Out()
}

// Writable offers a slot, the right to send one message, whenever the stream has
// credit, and is closed when the sending half ends. It is exact: a select with a
// default declines only when there is no credit, or while somebody holds the
// slot. A slot must be used or cancelled; the next one is offered after that.
func (s *Stream) Writable() <-chan Slot {
	s.accept()
	return s.c.Writable()
}

// Idle offers the time of the last message from the peer (at first the stream's
// start) while there has been no sign of life for StreamOptions.IdleTimeout: no
// message received or taken, no notice taken. The offer is withdrawn when a
// message arrives or is taken, so that no notice is ever stale. Own sends and keepalive
// don't count.
// Without an IdleTimeout it is nil. It is not closed when the stream ends.
func (s *Stream) Idle() <-chan time.Time {
	s.accept()
	return s.c.Idle()
}

// SendDone is closed when the stream will take no further message: after
// CloseSend, Close or Abort here, or a stop, reset or lost connection there.
func (s *Stream) SendDone() <-chan struct{} { return s.c.SendDone() }

// Done is closed when both halves have ended, on both sides, and nothing will
// change again. Messages that are here can still be taken.
func (s *Stream) Done() <-chan struct{} { return s.c.Done() }

// Err returns why the stream failed, or nil while it has not. A stream that both
// sides ended in order keeps nil; one that was cut short never does.
func (s *Stream) Err() error { return s.c.Err() }

// Discarded is the number of messages that we sent and the peer's application
// did not read, known once the stream has ended in order.
func (s *Stream) Discarded() int { return s.c.Discarded() }

// Send hands m over, waiting for credit. If it fails, m still belongs to the
// caller, who may try again: nothing of it was sent. A ctx that ends gives up
// this wait, not the stream. Errors: ErrTooLarge, ErrSendClosed, ErrStopped,
// ErrNotReadable, a StreamError, or ctx's.
func (s *Stream) Send(ctx context.Context, m Message) error {
	s.accept()
	return s.c.Send(ctx, m)
}

// TrySend hands m over if there is credit for it now, and fails with
// ErrWouldBlock if there is none. Credit of one byte admits a whole message.
func (s *Stream) TrySend(m Message) error {
	s.accept()
	return s.c.TrySend(m)
}

// Receive takes the next message. It returns io.EOF once the peer has ended its
// half and everything before that was taken; ErrClosed after CloseReceive; else
// the stream's error. A ctx that ends gives up this wait, not the stream.
func (s *Stream) Receive(ctx context.Context) (Message, error) {
	s.accept()
	return s.c.Receive(ctx)
}

// All yields every message and then, if the stream did not end in order, the
// error. Each message is the loop body's own: send it on, Release it, or let it
// go to the garbage collector.
func (s *Stream) All(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
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

// CloseSend ends the sending half after everything handed over before it. A
// second call does nothing. ErrNotSupported: the protocol can't end one half.
func (s *Stream) CloseSend() error {
	s.accept()
	return s.c.CloseSend(CodeOK, "", s.c.trailer())
}

// CloseReceive ends the receiving half: what waits unread is dropped, the peer's
// sends give ErrStopped, and Receive gives ErrClosed.
func (s *Stream) CloseReceive(code Code) {
	s.accept()
	s.c.CloseReceive(code)
}

// Close ends both halves in order and waits until the peer's application was
// handed the end, or until ctx ends, when it aborts. What the peer still sends
// is dropped. It returns the stream's error, nil if all went in order. Any
// number of calls, from any goroutine, end alike.
func (s *Stream) Close(ctx context.Context) error {
	s.accept()
	err := s.c.Close(ctx)
	if err != nil {
		s.c.closeOwnConn()
	}
	return err
}

// Abort ends both halves now and tells the peer why. Messages that have arrived
// can still be taken, those in the mailbox by Receive; messages not yet written
// are dropped. CodeOK is no failure, and becomes CodeUnknown.
func (s *Stream) Abort(code Code, reason string) {
	s.c.abort(failing(code), reason, nil)
	s.c.GiveUp()
}

// AbortCause is Abort because of a failure that was found on this side: the StreamError
// that Err returns has cause as its Cause. The peer is told code and reason alone. A
// stream that has ended before is left to those who read the rest of it.
func (s *Stream) AbortCause(code Code, reason string, cause error) {
	s.c.abort(failing(code), reason, cause)
}

// discard releases what a stream that is over still holds.
func (s *Stream) discard() {
	for {
		m, err := s.Receive(context.Background())
		if err != nil {
			return
		}
		m.Release()
	}
}

// streamContext is a stream seen as a context. It is made of the stream itself,
// so that an idle stream's context costs nothing.
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
	case errors.Is(err, &StreamError{Code: CodeDeadlineExceeded}):
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// Value implements context.Context.
func (c *streamContext) Value(key any) any {
	if key == (streamKey{}) {
		return (*Stream)(c)
	}
	if x := c.c.x.Load(); x != nil && x.parent != nil {
		return x.parent.Value(key)
	}
	return nil
}

// streamKey is the key of a stream in its context's values.
type streamKey struct{}

// FromContext returns the stream whose context ctx is, or is made from; nil if
// there is none.
func FromContext(ctx context.Context) *Stream {
	s, _ := ctx.Value(streamKey{}).(*Stream)
	return s
}
