package main

import (
	"context"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// verbEcho is the echo's verb: Seastar's clients call by number. The call takes a source
// and returns the sink of the same stream.
const verbEcho = 1

// registerEcho registers the echo as a call that a stream is passed to, over any
// protocol. It does not decode the messages, so it serves every type.
func registerEcho(srv *kernel.Server) error {
	type (
		source = *rpc.Source[pool.Message]
		sink   = *rpc.Sink[pool.Message]
	)
	return rpc.HandleUnary(srv, kernel.Verb(verbEcho), func(_ context.Context, in source) (sink, error) {
		out := rpc.MakeSink[pool.Message](in)
		in.Go(func(ctx context.Context) error { return echo(ctx, in.Stream()) }) // when the call is answered
		return out, nil
	}, nil)
}

// openPassed makes a sink and passes it to a call. The result is the other half of the
// same stream.
func openPassed(ctx context.Context, client *kernel.Client, method string) (*kernel.Stream, error) {
	sink, err := rpc.NewSink[pool.Message](ctx, client, nil)
	if err != nil {
		return nil, err
	}
	source, err := rpc.Call[*rpc.Source[pool.Message], *rpc.Sink[pool.Message]](ctx, client, method, sink, nil)
	if err != nil {
		return nil, err
	}
	return source.Stream(), nil
}
