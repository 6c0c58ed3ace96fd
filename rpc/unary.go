package rpc

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// HandleOptions are what a typed handler is registered with. Nil, and the zero
// value, are the defaults.
type HandleOptions struct {
	// Encoding is what its requests, results and values are carried by. Nil is
	// codec.Default or, over protocols that have values of their own, codec.Fixed.
	Encoding *codec.Encoding
}

func (o *HandleOptions) encoding() *codec.Encoding {
	if o == nil {
		return nil
	}
	return o.Encoding
}

// A Registrar takes handlers. A *kernel.Server and a *kernel.Handlers are Registrars.
type Registrar interface {
	Handle(pattern string, h kernel.Handler)
}

// HandleUnary has calls of method served by h, for clients that Call it. An error
// ends the call with the code of a status.HandlerError, else status.Unknown. A request
// that does not decode as Req ends the call with status.InvalidArgument without
// calling h, and so does a call whose metadata says that its values are carried in another
// way: see KeyRequest. A second request that comes while h runs ends the call, and ctx, with
// status.Unimplemented; h does not wait for the end of the caller's half. ctx ends with the call; kernel.FromContext(ctx) is its stream, whose
// SetHeader and SetTrailer say what travels with the reply.
//
// Req can hold sources: fields of type *Source[T], also in slices and inner
// structs, or it is one itself. They are the sinks that the client passes. Resp
// can hold sinks made of them by MakeSink, which the client gets as sources. A
// call that passes streams is answered when h returns; what is to be received and
// sent after that, h leaves to Source.Go. Before that, sources can be read, with
// little credit. If h fails, so do the streams, with its error. A stream whose
// sink h does not return has no way back. A source that h neither reads nor gives
// to Go should be closed.
//
// HandleUnary fails with codec.ErrNoCodec if a type can't be carried. If only a protocol that
// has values of its own can't carry one, calls that come by it fail with
// status.Unimplemented. HandleUnary may be called at any time. It panics if h is nil, or if
// the method has a handler.
func HandleUnary[Req, Resp any](r Registrar, method string, h func(ctx context.Context, req Req) (Resp, error), opts *HandleOptions) error {
	mustBeGiven(h != nil, method)
	passed := false
	sv, err := serve(method, opts.encoding(), func(p *pair[Req, Resp]) error {
		does, err := passedStreams(p)
		passed = passed || does
		return err
	})
	switch {
	case err != nil:
		return err
	case passed:
		r.Handle(method, func(ctx context.Context, st *kernel.Stream) error {
			o := st.Offer()
			if o == nil {
				st.Conn().Logger().Error("sluice: a middleware has used the stream of a call", "method", st.Method(), "peer", st.Conn().Peer().Addr)
				return errUsedBefore
			}
			return serveCall(ctx, o, sv, h)
		})
		return nil
	}
	r.Handle(method, func(ctx context.Context, st *kernel.Stream) error {
		p, req, err := sv.beginWith(ctx, st)
		if err != nil {
			return err
		}
		resp, err := h(ctx, req)
		if err != nil {
			return err
		}
		return sendReply(ctx, st, p.rep, resp)
	})
	return nil
}

// errUsedBefore is the error of a call that passes streams, if a middleware has accepted its
// stream: the answer would come too late.
var errUsedBefore = &status.HandlerError{
	Code: status.Internal, Reason: "a middleware has used the stream of a call that passes streams",
}

// passedStreams tells whether a handler with these types is passed streams.
func passedStreams[Req, Resp any](p *pair[Req, Resp]) (bool, error) {
	req, err := argumentsOf(p.req, p.e, &p.says.request)
	resp, err2 := argumentsOf(p.rep, p.e, &p.says.reply)
	switch err := cmp.Or(err, err2); {
	case err != nil:
		return false, err
	case req.sinks || resp.sources:
		return false, fmt.Errorf("%w: a handler is given sources and returns sinks", codec.ErrNoCodec)
	case resp.sinks && !req.sources:
		return false, fmt.Errorf("%w: a sink in the result is made of a source in the request", codec.ErrNoCodec)
	}
	return req.sources, nil
}
