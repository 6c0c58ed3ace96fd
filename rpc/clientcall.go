package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// A clientCall is a call that can pass streams, on the caller's side.
type clientCall struct {
	caller kernel.Caller
	method string
	opts   *kernel.CallOptions
	e      *codec.Encoding
	sinks  []*sinkBinding
	header metadata.MD      // of the answer
	opened []*kernel.Stream // for the call
	bound  []bool           // which of the sinks' streams are sources of the result
	oneWay bool             // the result has no sources
}

// errUnfinished is why the streams of a call end that has not returned.
var errUnfinished = errors.New("sluice: a panic or runtime.Goexit has ended the call")

// pass makes the call. If that does not return, because of a codec or of a Caller of the
// program's, the call has failed.
func pass[Req, Resp any](ctx context.Context, c *clientCall, p *pair[Req, Resp], req Req) (Resp, error) {
	returned := false
	defer func() {
		if !returned {
			c.fail(status.Cancelled, errUnfinished)
		}
	}()
	resp, err := makeCall(ctx, c, p, req)
	returned = true
	return resp, err
}

func makeCall[Req, Resp any](ctx context.Context, c *clientCall, p *pair[Req, Resp], req Req) (Resp, error) {
	var none Resp
	md, err := p.says.addTo(c.opts.Metadata, nil)
	if err != nil {
		return none, errtext.Errorf("sluice: call %s: %w", c.method, err)
	}
	if err := claimSinks(c, p.req, &req); err != nil {
		return none, err
	}
	c.oneWay = len(p.rep.RefTypes()) == 0
	m, err := c.call(ctx, md, func() (pool.Message, error) { return p.req.Marshal(&req) })
	if err != nil {
		c.fail(status.Cancelled, err)
		return none, err
	}
	var resp Resp
	unanswered := m.IsZero()
	if err = p.says.answered(c.header, reflect.TypeFor[Resp]()); err != nil {
		m.Release()
	} else if err = p.rep.Unmarshal(m, &resp); err == nil {
		err = eachArgument(p.rep, &resp, c.bind)
	}
	if err != nil {
		if serr := c.failure(ctx, unanswered); serr != nil {
			err = serr
		} else {
			err = decodeError[Resp](c.method, 0, err)
		}
		c.fail(status.InvalidArgument, err)
		return none, err
	}
	c.closeRest()
	return resp, nil
}

// claimSinks takes the sinks of the request; none if one can't be taken, or if they can't
// go through one call.
func claimSinks[Req any](c *clientCall, in *codec.Marshaler[Req], req *Req) error {
	err := eachArgument(in, req, c.claim)
	if err != nil {
		err = errtext.Errorf("sluice: call %s: sink %d of the request: %w", c.method, len(c.sinks), err)
	} else {
		err = c.agree()
	}
	if err != nil {
		for _, k := range c.sinks {
			k.unclaim()
		}
	}
	c.bound = make([]bool, len(c.sinks))
	return err
}

func (c *clientCall) claim(x argument) error {
	k := x.(sinkArgument).binding()
	if ours, _ := x.elements(c.e); !agree(k.signature, ours) {
		return fmt.Errorf("%w: the sink's values are %q, the call's %q", ErrEncoding, k.signature, ours)
	}
	if err := k.claim(c.caller); err != nil {
		return err
	}
	c.sinks = append(c.sinks, k)
	return nil
}

// agree checks that the sinks can go through one call.
func (c *clientCall) agree() error {
	for _, k := range c.sinks {
		if first := c.sinks[0]; k.on != first.on {
			return errtext.Errorf("sluice: call %s: %w", c.method, ErrSinkForeign)
		} else if k.dedicated != first.dedicated {
			return errtext.Errorf("sluice: call %s: %w: sinks with a connection of their own and others", c.method, kernel.ErrLimits)
		}
	}
	return nil
}

// call makes the call. Where its sinks have streams already they stand in the
// request by their numbers; else the request opens them, and they stand there by
// their places.
func (c *clientCall) call(ctx context.Context, md metadata.MD, request func() (pool.Message, error)) (pool.Message, error) {
	if c.caller.Caps().StreamsByID {
		return c.callByID(ctx, request)
	}
	each := make([]kernel.StreamOptions, max(len(c.sinks), 1))
	o := &kernel.OpenOptions{Metadata: md}
	for i, k := range c.sinks {
		k.ref.ID = uint64(i)
		each[i] = k.opts
		o.Dedicated = k.dedicated
	}
	var err error
	if o.Request, err = request(); err != nil {
		return pool.Message{}, err
	}
	if c.opts != nil {
		o.Request.SetCompression(c.opts.Compression)
	}
	return c.open(ctx, o, each)
}

// callByID makes a call whose streams are open, if it has any.
func (c *clientCall) callByID(ctx context.Context, request func() (pool.Message, error)) (pool.Message, error) {
	m, err := request()
	if err != nil {
		return pool.Message{}, err
	}
	caller := c.caller
	if len(c.sinks) > 0 {
		caller = c.sinks[0].on
	}
	if c.oneWay {
		c.closeRest() // the peer may close the streams' connections before the result comes
	}
	reply, err := caller.Call(ctx, c.method, m, c.opts)
	if err != nil {
		m.Release()
	}
	return reply, err
}

// open makes a call whose request opens its streams. Without sinks there is one
// nevertheless, which carries the call.
func (c *clientCall) open(ctx context.Context, o *kernel.OpenOptions, each []kernel.StreamOptions) (pool.Message, error) {
	ctx, cancel := c.opts.Bound(ctx)
	defer cancel()
	if len(c.sinks) == 0 {
		each[0].Context = context.WithoutCancel(ctx)
	}
	ss, err := c.caller.OpenN(ctx, c.method, o, each...)
	if err != nil {
		o.Request.Release()
		return pool.Message{}, err
	}
	c.opened = ss
	for i, k := range c.sinks {
		k.bind(ss[i])
	}
	reply, header, err := ss[0].Accepted(ctx)
	if err != nil {
		if c.opts.Trailer != nil {
			*c.opts.Trailer = ss[0].Trailer()
		}
		return pool.Message{}, callError(ctx, ss[0], err)
	}
	c.header = header
	if c.opts.Header != nil {
		*c.opts.Header = header
	}
	return reply, nil
}

// failure is why the call has failed that was answered with no result, nil if it has not. A
// middleware that has used the call's stream has accepted it, and what became of the call
// then comes with the stream's end.
func (c *clientCall) failure(ctx context.Context, unanswered bool) error {
	if !unanswered || len(c.opened) == 0 {
		return nil
	}
	m, err := c.opened[0].Receive(ctx)
	m.Release()
	if err == io.EOF {
		return nil
	}
	return err
}

// callError ends the first stream of a call that failed with err, and returns what the
// caller is told. Where ctx has ended the stream may not have heard of it yet.
func callError(ctx context.Context, s *kernel.Stream, err error) error {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		if serr := s.Err(); serr != nil {
			err = serr
		}
		s.Abort(status.Cancelled, "call given up")
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.AbortCause(status.DeadlineExceeded, "deadline exceeded", cause)
	default:
		s.AbortCause(status.Cancelled, cause.Error(), cause)
	}
	if serr := s.Err(); serr != nil {
		return serr
	}
	return err
}

// bind gives a source of the result the stream that it stands for.
func (c *clientCall) bind(x argument) error {
	for i, k := range c.sinks {
		if k.id() != x.id() {
			continue
		}
		s := k.stream.Load()
		if c.bound[i] || s == nil {
			break
		}
		c.bound[i] = true
		x.(sourceArgument).bind(s, c.e, nil)
		return nil
	}
	return fmt.Errorf("%w: the result names stream %d", ErrSinkForeign, x.id())
}

// closeRest ends what the result makes no use of.
func (c *clientCall) closeRest() {
	for i, k := range c.sinks {
		if s := k.stream.Load(); s != nil && !c.bound[i] {
			s.CloseReceive(status.OK)
		}
	}
	if len(c.sinks) == 0 {
		for _, s := range c.opened {
			_ = s.CloseSend()
			s.CloseReceive(status.OK)
		}
	}
}

// fail ends the streams of a call that failed.
func (c *clientCall) fail(code status.Code, err error) {
	for _, k := range c.sinks {
		k.fail(err)
	}
	reason := clip("the call failed: " + err.Error())
	for _, k := range c.sinks {
		if s := k.stream.Load(); s != nil {
			s.AbortCause(code, reason, err)
		}
	}
	for _, s := range c.opened {
		s.AbortCause(code, reason, err)
	}
}
