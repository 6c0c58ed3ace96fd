// Package rpc puts types on the streams of package kernel: calls with a request and a
// result, sinks and sources of values, and streams that travel as arguments and results
// of calls.
//
//	// On the server.
//	rpc.HandleUnary(srv, "lengths", func(_ context.Context, in *rpc.Source[point]) (*rpc.Sink[float64], error) {
//		out := rpc.MakeSink[float64](in)
//		in.Go(func(ctx context.Context) error { ... })
//		return out, nil
//	}, nil)
//
//	// On the client.
//	points, _ := rpc.NewSink[point](ctx, client, nil)
//	lengths, _ := rpc.Call[*rpc.Source[float64], *rpc.Sink[point]](ctx, client, "lengths", points, nil)
//
// Values are carried by an encoding of package codec. Unless options name another, that is
// codec.Default: raw bytes, protobuf or JSON, as the type says; over protocols that have
// values of their own, such as Seastar's, it is codec.Fixed. Both sides must use the same;
// where the protocol carries metadata they tell each other, and refuse what does not agree:
// see KeyRequest.
package rpc

// SupportPackageIsVersion1 is named in files that protoc-gen-go-sluice generates. Where it is
// missing, this package is too old for the file.
const SupportPackageIsVersion1 = true
