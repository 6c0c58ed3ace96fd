package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// CallOptions are what a call is made with. Nil, and the zero value, are the defaults.
type CallOptions struct {
	kernel.CallOptions
	// Encoding is what the request and the result are carried by. Nil is codec.Fixed.
	Encoding *codec.Encoding
}

// Call makes a call with a value each way. Its errors are kernel.Client.Call's,
// codec.ErrNoCodec and, if the result is not a Resp, a *codec.DecodeError.
//
// Req can hold sinks, made with NewSink for the same caller: fields of type
// *Sink[T], also in slices and inner structs, or it is one itself; 256 at most. The
// handler is given them as sources. Resp can hold sources: the other halves of those sinks'
// streams, if the handler returns them. They can send from the moment that the
// call is under way. A call that fails fails its streams. The time limit is the
// call's; the streams live on, until their sinks' contexts end. Errors beside the
// above: ErrSinkUsed, ErrSinkForeign, which leave the sinks as they were. Such a
// call is never tried again by itself.
func Call[Req, Resp any](ctx context.Context, c kernel.Caller, method string, req Req, opts *CallOptions) (Resp, error) {
	var none Resp
	var e *codec.Encoding
	var copts *kernel.CallOptions
	if opts != nil {
		e, copts = opts.Encoding, &opts.CallOptions
	}
	in, err := codec.MarshalerOf[Req](e)
	out, err2 := codec.MarshalerOf[Resp](e)
	if err := errors.Join(err, err2); err != nil {
		return none, errtext.Errorf("sluice: call %s: %w", method, err)
	}
	passes, err := passesStreams(in, out, e)
	switch {
	case err != nil:
		return none, errtext.Errorf("sluice: call %s: %w", method, err)
	case passes:
		return pass(ctx, &clientCall{caller: c, method: method, opts: copts, e: e}, in, out, req)
	}
	m, err := in.Marshal(&req)
	if err != nil {
		return none, err
	}
	r, err := c.Call(ctx, method, m, copts)
	if err != nil {
		in.Discard(m)
		return none, err
	}
	var resp Resp
	if err := out.Unmarshal(r, &resp); err != nil {
		return none, decodeError[Resp](method, 1, err)
	}
	return resp, nil
}

// passesStreams tells whether calls with these types pass streams.
func passesStreams[Req, Resp any](in *codec.Marshaler[Req], out *codec.Marshaler[Resp], e *codec.Encoding) (bool, error) {
	req, err := argumentsOf(in, e)
	resp, err2 := argumentsOf(out, e)
	switch err := errors.Join(err, err2); {
	case err != nil:
		return false, err
	case req.sources || resp.sinks:
		return false, fmt.Errorf("%w: a caller passes sinks and is given sources", codec.ErrNoCodec)
	case resp.sources && !req.sinks:
		return false, fmt.Errorf("%w: a source in the result is the other half of a sink in the request", codec.ErrNoCodec)
	}
	return req.sinks, nil
}
