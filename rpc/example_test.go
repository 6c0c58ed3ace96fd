package rpc_test

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// The server and the client of an example are in memory.
var (
	newServer = testkit.ExampleServer
	start     = testkit.StartExample
)

// A client passes a stream to a call, beside a number: it sends an int and a long
// at a time. The handler makes the other half, which goes back in its result: it
// sends strings.
func ExampleMakeSink() {
	ctx := context.Background()
	srv := newServer()

	type numbers struct {
		A int32
		B int64
	}
	type request struct { // as the handler has it
		Factor  int32
		Numbers *rpc.Source[numbers]
	}
	err := rpc.HandleUnary(srv, kernel.Verb(1), func(_ context.Context, r request) (*rpc.Sink[string], error) {
		out := rpc.MakeSink[string](r.Numbers)
		r.Numbers.Go(func(ctx context.Context) error { // when the call is answered
			for n, err := range r.Numbers.All(ctx) {
				if err != nil {
					return err
				}
				text := fmt.Sprint(int64(r.Factor) * (int64(n.A) + n.B))
				if err := out.Send(ctx, text); err != nil {
					return err
				}
			}
			return nil // the stream ends in order
		})
		return out, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	type args struct { // as the client has it
		Factor  int32
		Numbers *rpc.Sink[numbers]
	}
	sink, err := rpc.NewSink[numbers](ctx, client, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := rpc.Call[*rpc.Source[string], args](ctx, client, kernel.Verb(1), args{10, sink}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range int32(3) {
		_ = sink.Send(ctx, numbers{i, 100})
	}
	_ = sink.CloseSend()
	for text, err := range source.All(ctx) {
		fmt.Println(text, err)
	}
	// Output:
	// 1000 <nil>
	// 1010 <nil>
	// 1020 <nil>
}

// A typed call: a value each way. An error's code and reason reach the caller.
func ExampleHandleUnary() {
	ctx := context.Background()
	srv := newServer()
	type division struct{ A, B int64 }
	err := rpc.HandleUnary(srv, "divide", func(_ context.Context, d division) (int64, error) {
		if d.B == 0 {
			return 0, &status.HandlerError{Code: status.InvalidArgument, Reason: "division by zero"}
		}
		return d.A / d.B, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(rpc.Call[int64, division](ctx, client, "divide", division{42, 6}, nil))
	_, err = rpc.Call[int64, division](ctx, client, "divide", division{42, 0}, nil)
	fmt.Println(err)
	// Output:
	// 7 <nil>
	// sluice: stream 3 (divide): ended by peer: INVALID_ARGUMENT: division by zero
}

// A handler and the calls of it name the same encoding.
func ExampleCallOptions_encoding() {
	ctx := context.Background()
	srv := newServer()
	type person struct{ Name, Town string }
	in := &rpc.HandleOptions{Encoding: codec.JSON}
	err := rpc.HandleUnary(srv, "greet", func(_ context.Context, p person) (person, error) {
		return person{p.Name, "London"}, nil
	}, in)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(rpc.Call[person, person](ctx, client, "greet", person{Name: "Ada"}, &rpc.CallOptions{Encoding: codec.JSON}))
	// Output:
	// {Ada London} <nil>
}

// A stream with a type for each direction.
func ExampleHandleBidi() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleBidi(srv, "lengths", func(ctx context.Context, d *rpc.Bidi[string, int32]) error {
		for text, err := range d.In.All(ctx) {
			if err != nil {
				return err
			}
			if err := d.Out.Send(ctx, int32(len(text))); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	d, err := rpc.CallBidi[int32, string](ctx, client, "lengths", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, word := range []string{"a", "bcd", ""} {
		_ = d.Out.Send(ctx, word)
		fmt.Println(d.In.Receive(ctx))
	}
	_ = d.Out.CloseSend()
	_, err = d.In.Receive(ctx)
	fmt.Println(err == io.EOF, d.In.Err())
	// Output:
	// 1 <nil>
	// 3 <nil>
	// 0 <nil>
	// true <nil>
}

// Many values up, one down.
func ExampleHandleClientStream() {
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

	d, err := rpc.CallClientStream[int32, int64](ctx, client, "sum", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range int32(101) {
		_ = d.Out.Send(ctx, n)
	}
	fmt.Println(d.CloseAndReceive(ctx))
	// Output:
	// 5050 <nil>
}

// One value up, many down.
func ExampleHandleServerStream() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleServerStream(srv, "count", func(ctx context.Context, to uint8, out *rpc.Sink[uint8]) error {
		for n := range to {
			if err := out.Send(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	source, err := rpc.CallServerStream[uint8, uint8](ctx, client, "count", 3, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n, err := range source.All(ctx) {
		fmt.Println(n, err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
}

// The channels of a sink and a source stand in selects, beside each other and
// anything else.
func ExampleSink_Out() {
	ctx := context.Background()
	srv := newServer()
	err := rpc.HandleBidi(srv, "square", func(ctx context.Context, d *rpc.Bidi[int32, int32]) error {
		for n, err := range d.In.All(ctx) {
			if err != nil {
				return err
			}
			if err := d.Out.Send(ctx, n*n); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	d, err := rpc.CallBidi[int32, int32](ctx, client, "square", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	next, out := int32(0), d.Out.Out()
	for in := d.In.In(); in != nil; {
		select {
		case n, ok := <-in:
			if !ok {
				in = nil // and Err says why
				break
			}
			fmt.Println(n)
		case out <- next:
			if next++; next == 4 {
				_ = d.Out.CloseSend()
				out = nil
			}
		case <-time.After(time.Minute):
			fmt.Println("nothing happens")
		}
	}
	fmt.Println(d.In.Err())
	// Output:
	// 0
	// 1
	// 4
	// 9
	// <nil>
}

// EncodingOf makes an encoding of a codec of the program's own.
func ExampleCallOptions_ownCodec() {
	ctx := context.Background()
	srv := newServer()
	minutes := codec.EncodingOf(minuteCodec{})
	err := rpc.HandleUnary(srv, "later", func(_ context.Context, d time.Duration) (time.Duration, error) {
		return d + time.Hour, nil
	}, &rpc.HandleOptions{Encoding: minutes})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(rpc.Call[time.Duration, time.Duration](ctx, client, "later", 5*time.Minute,
		&rpc.CallOptions{Encoding: minutes}))
	// Output:
	// 1h5m0s <nil>
}

// minuteCodec carries a duration in whole minutes, in as many bytes as there are.
type minuteCodec struct{}

func (minuteCodec) Append(b []byte, d time.Duration) ([]byte, error) {
	return fmt.Append(b, int64(d/time.Minute)), nil
}

func (minuteCodec) Decode(p []byte) (time.Duration, error) {
	var n int64
	_, err := fmt.Sscan(string(p), &n)
	return time.Duration(n) * time.Minute, err
}

// Any stream can be given types, whoever opened it: here the server does.
func ExampleSourceOf() {
	ctx := context.Background()
	srv, err := kernel.NewServer(&kernel.ServerOptions{OnConn: func(c *kernel.Conn) {
		d, err := rpc.CallBidi[struct{}, string](ctx, c, "news", nil)
		if err != nil {
			return
		}
		for _, line := range []string{"it rains", "it shines"} {
			_ = d.Out.Send(ctx, line)
		}
		_ = d.Close(ctx)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	lines := make(chan string)
	var handlers kernel.Handlers
	handlers.Handle("news", func(ctx context.Context, s *kernel.Stream) error {
		defer close(lines)
		src, err := rpc.SourceOf[string](s, nil)
		if err != nil {
			return err
		}
		for line, err := range src.All(ctx) {
			if err != nil {
				return err
			}
			lines <- line
		}
		return nil
	})
	_, stop := start(srv, &kernel.ClientOptions{Handlers: &handlers})
	defer stop()
	for line := range lines {
		fmt.Println(line)
	}
	// Output:
	// it rains
	// it shines
}
