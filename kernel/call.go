package kernel

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Call makes a unary call: a stream with one message each way. If it succeeds, it has
// taken over req, and the reply belongs to the caller. If it fails, req still belongs to
// the caller. Errors: those of Open, a status.StreamError with the handler's status, ErrNoReply.
func (c *Conn) Call(ctx context.Context, method string, req pool.Message, opts *CallOptions) (pool.Message, error) {
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	if opts != nil && opts.NoWait {
		return pool.Message{}, sendOnly(ctx, c, method, req, opts)
	}
	s, err := c.Open(ctx, method, opts.open())
	if err != nil {
		return pool.Message{}, err
	}
	reply, err := s.call(ctx, req)
	opts.report(s)
	return reply, err
}

// report gives what came with the call's reply and with its end, and the connection, if the
// options ask for them.
func (o *CallOptions) report(s *Stream) {
	if o == nil {
		return
	}
	if o.Conn != nil {
		*o.Conn = s.Conn()
	}
	if o.Header != nil {
		*o.Header = s.c.Header()
	}
	if o.Trailer != nil {
		*o.Trailer = s.Trailer()
	}
}

// sendOnly makes a call whose reply nobody waits for. ctx bounds the opening and the
// sending; its deadline bounds the call.
func sendOnly(ctx context.Context, c Caller, method string, req pool.Message, opts *CallOptions) error {
	o := opts.open()
	o.noReply = true
	s, err := c.Open(ctx, method, o)
	if err != nil {
		return err
	}
	if err := s.Send(ctx, req); err != nil {
		return s.fail(ctx, err)
	}
	_ = s.CloseSend()
	s.CloseReceive(status.OK)
	return nil
}

// detached is a context as the life of a stream that goes on when the context has ended,
// until its deadline.
type detached struct{ context.Context }

// Done implements context.Context.
func (detached) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (detached) Err() error { return nil }

func (o *CallOptions) open() *OpenOptions {
	if o == nil {
		return &OpenOptions{unary: true}
	}
	return &OpenOptions{
		Metadata: o.Metadata, WaitForReady: o.WaitForReady, unary: true,
		Stream: StreamOptions{Compression: o.Compression, MaxReceive: o.MaxReceive, MaxSend: o.MaxSend},
	}
}

// Bound returns ctx with the time limit of a call with these options: Timeout, or 60 s if
// Timeout is zero and ctx has no deadline. The caller must call the CancelFunc.
func (o *CallOptions) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	d := time.Duration(defaultCallTimeout)
	if o != nil && o.Timeout != 0 {
		d = o.Timeout
	}
	_, has := ctx.Deadline()
	if asked := o != nil && o.Timeout > 0; d == Unlimited || has && !asked {
		return ctx, func() {}
	}
	return context.WithTimeout(sound(ctx), d)
}

// call sends the request and waits for the reply and the end. It takes over req if it
// succeeds.
func (s *Stream) call(ctx context.Context, req pool.Message) (pool.Message, error) {
	reply, err := s.exchange(ctx, req.Share())
	if err == nil {
		req.Release()
	}
	return reply, err
}

func (s *Stream) exchange(ctx context.Context, req pool.Message) (pool.Message, error) {
	if err := s.Send(ctx, req); err != nil {
		req.Release()
		if errors.Is(err, ErrStopped) {
			return s.receiveReply(ctx)
		}
		return pool.Message{}, s.fail(ctx, err)
	}
	_ = s.CloseSend()
	return s.receiveReply(ctx)
}

// receiveReply receives the one reply, which can have come with the acceptance, and the end.
func (s *Stream) receiveReply(ctx context.Context) (pool.Message, error) {
	reply, err := s.Receive(ctx)
	if given, _, _ := s.c.Answer(over); !given.IsZero() {
		if isEOF(err) {
			return given, nil
		}
		if err == nil {
			given.Release()
			return pool.Message{}, s.twoReplies(reply)
		}
	}
	if err != nil {
		return pool.Message{}, s.fail(ctx, err)
	}
	if more, err := s.Receive(ctx); err == nil {
		reply.Release()
		return pool.Message{}, s.twoReplies(more)
	} else if err := s.callErr(err); err != nil && !errors.Is(err, ErrNoReply) {
		reply.Release()
		return pool.Message{}, err
	}
	return reply, nil
}

// over is a context that has ended: what is asked with it does not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// twoReplies aborts a call whose second reply is m.
func (s *Stream) twoReplies(m pool.Message) error {
	m.Release()
	s.Abort(status.Cancelled, moreReplies)
	s.c.Drop()
	return &status.StreamError{Stream: s.ID(), Method: s.Method(), Code: status.Unimplemented, Reason: moreReplies}
}

// moreReplies is what a caller has made no use of: as with gRPC, the method is of another
// kind than the caller believes.
const moreReplies = "more than one reply"

// fail aborts a call that failed with err, and returns the error for its caller. If ctx
// has ended, the stream may not have noticed yet. A reply that has come all the same is
// dropped: only the call could have returned it.
func (s *Stream) fail(ctx context.Context, err error) error {
	defer s.dropReply()
	switch {
	case ctx.Err() == nil:
		err = s.callErr(err)
		s.Abort(status.Cancelled, "the call has failed")
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.c.abort(status.DeadlineExceeded, "deadline exceeded", context.Cause(ctx))
	default:
		s.c.abort(status.Cancelled, context.Cause(ctx).Error(), context.Cause(ctx))
	}
	return s.callErr(err)
}

// dropReply releases what has arrived of a call that has failed.
func (s *Stream) dropReply() {
	s.c.StopFeeding()
	s.c.Drop()
	if given, _, _ := s.c.Answer(over); !given.IsZero() {
		given.Release()
	}
}

// callErr is the stream's error, or else err, for the caller of a call.
func (s *Stream) callErr(err error) error {
	if serr := s.Err(); serr != nil {
		return serr
	}
	if isEOF(err) {
		return &status.StreamError{
			Stream: s.ID(), Method: s.Method(), Code: status.Unimplemented, Reason: "the call ended without a reply", Cause: ErrNoReply,
		}
	}
	return err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
