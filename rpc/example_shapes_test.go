package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// Handlers are registered on anything that has Handle: a server, or handlers that a server or
// a client is given later. A Registrar of one's own can change the names, for example.
func ExampleRegistrar() {
	ctx := context.Background()
	var handlers kernel.Handlers
	err := rpc.HandleUnary(prefixed{&handlers, "v2/"}, "greet", func(_ context.Context, name string) (string, error) {
		return "hello, " + name, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()
	fmt.Println(rpc.Call[string](ctx, client, "v2/greet", "Ada", nil))
	// Output: hello, Ada <nil>
}

type prefixed struct {
	rpc.Registrar
	prefix string
}

func (p prefixed) Handle(pattern string, h kernel.Handler) { p.Registrar.Handle(p.prefix+pattern, h) }

// A client stream that goes wrong on this side is aborted. Its untyped stream says more
// about it.
func ExampleClientStream() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleClientStream(srv, "sum", func(ctx context.Context, in *rpc.Source[int32]) (int64, error) {
		sum := int64(0)
		for n, err := range in.All(ctx) {
			if err != nil {
				return 0, err
			}
			sum += int64(n)
		}
		return sum, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	upload := func(numbers []int32) (*rpc.ClientStream[int32, int64], error) {
		up, err := rpc.CallClientStream[int32, int64](ctx, client, "sum", &rpc.OpenOptions{
			OpenOptions: kernel.OpenOptions{Metadata: metadata.MD{{Key: "user", Value: "ada"}}},
			Encoding:    codec.Default,
		})
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			if n < 0 {
				up.Abort(status.Cancelled, "the numbers are no good")
				return up, up.Stream().Err()
			}
			if err := up.Out.Send(ctx, n); err != nil {
				return up, err
			}
		}
		return up, nil
	}
	up, err := upload([]int32{1, 2, 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(up.CloseAndReceive(ctx))
	_, err = upload([]int32{-1})
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.Cancelled}))
	// Output:
	// 6 <nil>
	// true
}

// BidiOf puts types on a stream that is there, here between the two ends of a test.
func ExampleBidiOf() {
	t := &testkit.ExampleT{}
	defer t.Done()
	ctx := context.Background()
	a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{})
	ours, err := rpc.BidiOf[string, int](a, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	theirs, err := rpc.BidiOf[int, string](b, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = ours.Out.Send(ctx, 42)
	fmt.Println(theirs.In.Receive(ctx))
	fmt.Println(ours.Stream() == a)
	theirs.Abort(status.Aborted, "enough")
	_, err = ours.In.Receive(ctx)
	fmt.Println(err)
	// Output:
	// 42 <nil>
	// true
	// sluice: stream 1 (kerneltest): ended by peer: ABORTED: enough
}

// The halves of a stream end separately. CloseReceive tells the other side to stop; Close
// ends both halves and waits for the peer's program.
func ExampleSink() {
	t := &testkit.ExampleT{}
	defer t.Done()
	ctx := context.Background()
	a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{})
	sink, err := rpc.SinkOf[string](a, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := rpc.SourceOf[string](b, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sink.TrySend("now or never"))
	fmt.Println(source.Receive(ctx))
	source.CloseReceive(status.OK)
	<-sink.SendDone()
	fmt.Println(errors.Is(sink.Send(ctx, "more"), kernel.ErrStopped), sink.Err())
	fmt.Println(sink.Stream() == a, source.Stream() == b)
	go func() { _ = source.Close(ctx) }()
	fmt.Println(sink.Close(ctx))
	// Output:
	// <nil>
	// now or never <nil>
	// true <nil>
	// true true
	// <nil>
}

// Abort resets the stream from either end.
func ExampleSource_Abort() {
	t := &testkit.ExampleT{}
	defer t.Done()
	a, b := kerneltest.Pipe(t, kernel.StreamOptions{}, kernel.StreamOptions{})
	sink, err := rpc.SinkOf[string](a, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := rpc.SourceOf[string](b, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	source.Abort(status.ResourceExhausted, "the disk is full")
	<-sink.SendDone()
	fmt.Println(sink.Err())
	// Output: sluice: stream 1 (kerneltest): ended by peer: RESOURCE_EXHAUSTED: the disk is full
}

// A sink is passed to one call, by the caller that it was made for, with the same encoding.
func ExampleNewSink_errors() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleUnary(srv, "log", func(ctx context.Context, lines *rpc.Source[string]) (int32, error) {
		lines.Go(func(ctx context.Context) error {
			for _, err := range lines.All(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		})
		return 0, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()
	on, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}

	lines, err := rpc.NewSink[string](ctx, client, &rpc.SinkOptions{Encoding: codec.JSON})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(errors.Is(lines.Send(ctx, "early"), rpc.ErrSinkUnused))
	_, err = rpc.Call[int32](ctx, on, "log", lines, nil) // the sink is the client's, not the connection's
	fmt.Println(errors.Is(err, rpc.ErrSinkForeign))
	_, err = rpc.Call[int32](ctx, client, "log", lines, &rpc.CallOptions{Encoding: codec.Fixed})
	fmt.Println(errors.Is(err, rpc.ErrEncoding))
	_, err = rpc.Call[int32](ctx, client, "log", lines, &rpc.CallOptions{Encoding: codec.JSON})
	fmt.Println(err)
	_, err = rpc.Call[int32](ctx, client, "log", lines, &rpc.CallOptions{Encoding: codec.JSON})
	fmt.Println(errors.Is(err, rpc.ErrSinkUsed))
	fmt.Println(lines.Close(ctx))

	unused, err := rpc.NewSink[string](ctx, client, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	unused.Abort(status.Cancelled, "not needed")
	// Output:
	// true
	// true
	// true
	// <nil>
	// true
	// <nil>
}

// Each typed open and call says what its values are; a handler that has other types refuses.
// The reserved keys show what was said.
func ExampleKeyRequest() {
	ctx := context.Background()
	var said metadata.MD
	var handlers kernel.Handlers
	handlers.Use(func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			said = s.Metadata()
			return next(ctx, s)
		}
	})
	type point struct{ X, Y int32 }
	err := rpc.HandleUnary(&handlers, "mirror", func(_ context.Context, p point) (point, error) {
		return point{p.Y, p.X}, nil
	}, &rpc.HandleOptions{Encoding: codec.Fixed})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(rpc.Call[point](ctx, client, "mirror", point{1, 2}, &rpc.CallOptions{Encoding: codec.Fixed}))
	fmt.Println(said.Get(rpc.KeyRequest) == said.Get(rpc.KeyReply)) // "fixed;" and a hash of the fields
	_, err = rpc.Call[point](ctx, client, "mirror", point{1, 2}, nil)
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.InvalidArgument}), said.Get(rpc.KeyRequest))
	// Output:
	// {2 1} <nil>
	// true
	// true json
}

// Options of a typed call are those of kernel's with an encoding beside them. Bound is for
// those who make several calls within the limit of one.
func ExampleCallOptions() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleUnary(srv, "greet", func(_ context.Context, name string) (string, error) {
		return "hello, " + name, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Timeout: 5 * time.Second, WaitForReady: true}}
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	for _, name := range []string{"Ada", "Grace"} {
		fmt.Println(rpc.Call[string](ctx, client, "greet", name, opts))
	}
	// Output:
	// hello, Ada <nil>
	// hello, Grace <nil>
}
