package rpc

import (
	"cmp"
	"context"
	"fmt"
	"reflect"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// CallOptions are what a call is made with. Nil, and the zero value, are the defaults.
type CallOptions struct {
	kernel.CallOptions
	// Encoding is what the request and the result are carried by. Nil is codec.Default or,
	// where the protocol has values of its own, codec.Fixed.
	Encoding *codec.Encoding
}

func (o *CallOptions) encoding() *codec.Encoding {
	if o == nil {
		return nil
	}
	return o.Encoding
}

// kernel is never nil.
func (o *CallOptions) kernel() *kernel.CallOptions {
	if o == nil {
		return &kernel.CallOptions{}
	}
	return &o.CallOptions
}

// Call makes a unary call, which HandleUnary serves: a value each way. Req need not be
// named: rpc.Call[Resp](ctx, c, method, req, nil). Its errors are kernel.Client.Call's,
// codec.ErrNoCodec and, if the result is not a Resp, a *codec.DecodeError. A handler that
// carries its values in another way ends the call with status.InvalidArgument: see
// KeyRequest.
//
// Req can hold sinks, made with NewSink for the same caller: fields of type
// *Sink[T], also in slices and inner structs, or it is one itself; 256 at most. The
// handler is given them as sources. Resp can hold sources: the other halves of those sinks'
// streams, if the handler returns them. They can send from the moment that the
// call is under way. A call that fails fails its streams. The time limit is the
// call's; the streams live on, until their sinks' contexts end. Errors beside the
// above: ErrSinkUsed, ErrSinkForeign, ErrEncoding, which leave the sinks as they were. Such a
// call is never tried again by itself.
//
// With NoWait the result is a zero Resp. A call that passes streams waits all the same.
func Call[Resp, Req any](ctx context.Context, c kernel.Caller, method string, req Req, opts *CallOptions) (Resp, error) {
	var none Resp
	p, err := pairOf[Req, Resp](opts.encoding(), c.Caps().FixedValues)
	passes := false
	if err == nil {
		passes, err = passesStreams(&p)
	}
	if err != nil {
		return none, errtext.Errorf("sluice: call %s: %w", method, err)
	}
	if passes {
		waits := *opts.kernel()
		waits.NoWait = false
		return pass(ctx, &clientCall{caller: c, method: method, opts: &waits, e: p.e}, &p, req)
	}
	o := callWith{CallOptions: *opts.kernel()}
	if o.Metadata, err = p.says.addTo(o.Metadata, o.room[:0]); err != nil {
		return none, errtext.Errorf("sluice: call %s: %w", method, err)
	}
	header := o.Header
	if header == nil {
		header = &o.header
		o.Header = header
	}
	m, err := p.req.Marshal(&req)
	if err != nil {
		return none, err
	}
	r, err := c.Call(ctx, method, m, &o.CallOptions)
	if err != nil {
		p.req.Discard(m)
		return none, err
	}
	if o.NoWait {
		return none, nil
	}
	var resp Resp
	if err = p.says.answered(*header, reflect.TypeFor[Resp]()); err != nil {
		r.Release()
	} else {
		err = p.rep.Unmarshal(r, &resp)
	}
	if err != nil {
		return none, decodeError[Resp](method, 1, err)
	}
	return resp, nil
}

// callWith are options, with room for what they name: one allocation.
type callWith struct {
	kernel.CallOptions
	header metadata.MD
	room   [2]metadata.Field
}

// passesStreams tells whether calls with these types pass streams.
func passesStreams[Req, Resp any](p *pair[Req, Resp]) (bool, error) {
	req, err := argumentsOf(p.req, p.e, &p.says.request)
	resp, err2 := argumentsOf(p.rep, p.e, &p.says.reply)
	switch err := cmp.Or(err, err2); {
	case err != nil:
		return false, err
	case req.sources || resp.sinks:
		return false, fmt.Errorf("%w: a caller passes sinks and is given sources", codec.ErrNoCodec)
	case resp.sources && !req.sinks:
		return false, fmt.Errorf("%w: a source in the result is the other half of a sink in the request", codec.ErrNoCodec)
	}
	return req.sinks, nil
}
