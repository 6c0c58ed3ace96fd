package wire

import (
	"context"
	"errors"
	"sync"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// Register has hs answer the echo clients of brpc and Seastar, with echo for each stream.
func Register(hs *kernel.Handlers, echo kernel.Handler) error {
	hs.HandleOffer(MethodBRPC, func(ctx context.Context, o *kernel.Offer) error {
		if o.Unary() {
			return answerCall(ctx, o)
		}
		return answerStreams(ctx, o, echo)
	})
	// A call that takes the source of a stream, and returns the sink of the same one, over
	// any protocol. It does not decode the messages, so it serves every type.
	type (
		source = *rpc.Source[pool.Message]
		sink   = *rpc.Sink[pool.Message]
	)
	return rpc.HandleUnary(hs, kernel.Verb(verbEcho), func(_ context.Context, in source) (sink, error) {
		out := rpc.MakeSink[pool.Message](in)
		in.Go(func(ctx context.Context) error { return echo(ctx, in.Stream()) }) // when the call is answered
		return out, nil
	}, nil)
}

// answerCall answers a call with its request.
func answerCall(ctx context.Context, o *kernel.Offer) error {
	request, err := o.Request(ctx)
	if err != nil {
		return err
	}
	s, err := o.Accept(request, nil)
	if err != nil {
		return err
	}
	return s.CloseSend()
}

// answerStreams serves each stream that a call opens. A brpc client waits for the answer
// before it writes, and expects a message in it.
func answerStreams(ctx context.Context, o *kernel.Offer, echo kernel.Handler) error {
	streams, err := o.AcceptAll(exampleMessage("Accepted stream"), nil)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(streams))
	for i, s := range streams {
		wg.Go(func() {
			if errs[i] = echo(s.Context(), s); errs[i] == nil {
				errs[i] = s.Close(ctx)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// exampleMessage is EchoRequest and EchoResponse of brpc's examples, a protobuf message
// whose field 1 is a string. Programs with more to say use rpc/protocodec.
func exampleMessage(text string) pool.Message {
	const field1String = 1<<3 | 2
	return pool.MessageOf(append([]byte{field1String, byte(len(text))}, text...))
}

// openPassed makes a sink and passes it to a call. The result is the other half of the
// same stream.
func openPassed(ctx context.Context, c kernel.Caller, method string) (*kernel.Stream, error) {
	sink, err := rpc.NewSink[pool.Message](ctx, c, nil)
	if err != nil {
		return nil, err
	}
	source, err := rpc.Call[*rpc.Source[pool.Message]](ctx, c, method, sink, nil)
	if err != nil {
		return nil, err
	}
	return source.Stream(), nil
}
