package rpc

import (
	"context"
	"fmt"
	"sync"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// A serverCall is a call that passes streams, on the handler's side.
type serverCall struct {
	wire callWire // streams that are open already go on without the call's handler
	e    *codec.Encoding

	mu       sync.Mutex
	streams  []*callStream // those that the request names
	answered bool
	err      error // why the call failed
	waiting  []service
	running  int           // services that have begun and not ended
	idle     chan struct{} // closed when running is 0 again
}

// A callStream is one stream of a serverCall. It implements handledStream.
type callStream struct {
	call     *serverCall
	stream   *kernel.Stream
	id       uint64
	sink     *sinkBinding // that MakeSink has made of it
	returned bool         // and that is a part of the result
	services int          // that run, or will
}

// A service is a function that serves a stream.
type service struct {
	of *callStream
	f  func(context.Context) error
}

// serveCall serves a call that passes streams.
func serveCall[Req, Resp any](ctx context.Context, o *kernel.Offer, sv *served[Req, Resp], h func(ctx context.Context, req Req) (Resp, error)) error {
	p, err := sv.on(o.Conn(), o.Method(), o.Metadata())
	if err != nil {
		return err // which refuses the offer
	}
	if add := p.says.missing(o.Metadata()); add != nil {
		_ = o.SetHeader(add) // if the peer takes no metadata, it is not told
	}
	c := &serverCall{e: p.e, wire: callWire{o: o, byID: o.Conn().Caps().StreamsByID}}
	answered := false
	defer func() { // also if h panics
		if !answered {
			c.abandon(err)
		}
	}()
	req, err := readRequest(ctx, c, o, p.req)
	if err != nil {
		return err
	}
	resp, err := h(ctx, req)
	if err == nil {
		err = sendResult(o, c, p.rep, resp)
	}
	if err != nil {
		return err
	}
	answered = true
	c.begin()
	c.serve()
	return nil
}

func readRequest[Req any](ctx context.Context, c *serverCall, o *kernel.Offer, in *codec.Marshaler[Req]) (Req, error) {
	var req Req
	m, err := o.Request(ctx)
	if err != nil {
		return req, noRequest(err)
	}
	// The streams of a request that is invalid are taken too: they end with the call.
	err = in.Unmarshal(m, &req)
	if e := allArguments(in, &req, func(x argument) error { return c.take(ctx, x) }); err == nil {
		err = e
	}
	if n := c.wire.unnamed(); err == nil && n > 0 {
		err = fmt.Errorf("%d of the streams that it opens have no place in it", n)
	}
	if err != nil {
		logPanic(o.Conn(), o.Method(), err)
		return req, invalidRequest[Req](o.Method(), 0, err)
	}
	return req, nil
}

func sendResult[Resp any](o *kernel.Offer, c *serverCall, out *codec.Marshaler[Resp], resp Resp) error {
	m, err := pool.Message{}, eachArgument(out, &resp, c.give)
	if err == nil {
		m, err = out.Marshal(&resp)
	}
	if err != nil {
		return badResult(o.Conn(), o.Method(), err)
	}
	if err := c.wire.answer(m); err != nil {
		m.Release()
		return err
	}
	return nil
}

// take gives a source of the request the stream that it stands for.
func (c *serverCall) take(ctx context.Context, x argument) error {
	s, err := c.wire.stream(ctx, x.id())
	if err != nil {
		return err
	}
	cs := &callStream{call: c, stream: s, id: x.id()}
	c.streams = append(c.streams, cs)
	x.(sourceArgument).bind(s, c.e, cs)
	return nil
}

// give notes that a sink is a part of the result.
func (c *serverCall) give(x argument) error {
	k := x.(sinkArgument).binding()
	if err := k.failed(); err != nil {
		return err
	}
	for _, cs := range c.streams {
		switch {
		case cs.sink != k:
		case cs.returned:
			return ErrSinkUsed
		default:
			cs.returned = true
			return nil
		}
	}
	return ErrSinkForeign
}

// begin lets what was made for the call work: it is answered.
func (c *serverCall) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = true
	for _, cs := range c.streams {
		if cs.returned {
			cs.sink.bind(cs.stream)
			continue
		}
		if cs.sink != nil {
			cs.sink.fail(kernel.ErrSendClosed)
		}
		c.endUnread(cs.stream)
	}
}

// endUnread ends a half that nobody over there reads.
func (c *serverCall) endUnread(s *kernel.Stream) {
	if key := c.wire.o.Conn().Caps().Unread; key != "" {
		_ = s.SetTrailer(metadata.MD{{Key: key}}) // without it the half ends too
	}
	_ = s.CloseSend()
}

// abandon ends the streams of a call that has failed; without an error its handler
// has panicked. Nobody will read what has arrived.
func (c *serverCall) abandon(err error) {
	code, reason := status.Internal, "the handler panicked"
	if err != nil {
		code, reason = status.Of(err)
		c.wire.o.Reject(err)
	} else {
		err = kernel.ErrClosed
	}
	c.mu.Lock()
	c.err = err
	streams := c.streams
	c.mu.Unlock()
	for _, cs := range streams {
		cs.stream.Abort(code, reason)
		discard(cs.stream)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cs := range streams {
		if cs.sink != nil {
			cs.sink.fail(err)
		}
	}
}

// serve runs what was left for after the answer. It returns when all of that has or, where
// the streams go on without the call's handler, at once.
func (c *serverCall) serve() {
	c.mu.Lock()
	ss := c.waiting
	c.waiting = nil
	for range ss {
		c.begun()
	}
	c.mu.Unlock()
	detached := c.wire.byID
	for i, s := range ss {
		if detached || i < len(ss)-1 {
			go c.run(s)
		} else {
			c.run(s)
		}
	}
	c.mu.Lock()
	idle, running := c.idle, c.running
	c.mu.Unlock()
	if running > 0 && !detached {
		<-idle
	}
}

// begun counts a service in. The lock is held.
func (c *serverCall) begun() {
	if c.running++; c.running == 1 {
		c.idle = make(chan struct{})
	}
}

// ended counts it out.
func (c *serverCall) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 {
		close(c.idle)
	}
}

// run runs one service, and ends its stream when it is the last or fails.
func (c *serverCall) run(s service) {
	defer c.ended()
	s.of.stream.Serve(func(ctx context.Context) {
		err := s.f(ctx)
		c.mu.Lock()
		s.of.services--
		last, sink := s.of.services == 0, s.of.sink
		c.mu.Unlock()
		switch {
		case err != nil:
			s.of.stream.Finish(err)
		case last:
			if sink != nil {
				sink.flushed(ctx)
			}
			s.of.stream.Finish(nil)
		}
	})
}

// makeSink implements handledStream.
func (cs *callStream) makeSink(k *sinkBinding) error {
	c := cs.call
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case cs.sink != nil:
		return ErrSinkUsed
	case c.err != nil:
		return c.err
	}
	cs.sink = k
	k.expect(cs.stream, cs.id, c.answered)
	return nil
}

// run implements handledStream.
func (cs *callStream) run(f func(context.Context) error) {
	c := cs.call
	c.mu.Lock()
	defer c.mu.Unlock()
	s := service{cs, f}
	switch {
	case c.err != nil:
		return
	case !c.answered:
		c.waiting = append(c.waiting, s)
	default:
		c.begun()
		go c.run(s)
	}
	cs.services++
}

// encoding implements handledStream.
func (cs *callStream) encoding() *codec.Encoding { return cs.call.e }
