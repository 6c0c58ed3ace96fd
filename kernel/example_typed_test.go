package kernel_test

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sluicerpc/sluice/kernel"
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
		Numbers *kernel.Source[numbers]
	}
	err := kernel.Register(srv, kernel.Verb(1), func(_ context.Context, r request) (*kernel.Sink[string], error) {
		out := kernel.MakeSink[string](r.Numbers)
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
		Numbers *kernel.Sink[numbers]
	}
	sink, err := kernel.NewSink[numbers](ctx, client, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := kernel.Call[args, *kernel.Source[string]](ctx, client, kernel.Verb(1), args{10, sink}, nil)
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
func ExampleRegister() {
	ctx := context.Background()
	srv := newServer()
	type division struct{ A, B int64 }
	err := kernel.Register(srv, "divide", func(_ context.Context, d division) (int64, error) {
		if d.B == 0 {
			return 0, &kernel.HandlerError{Code: kernel.CodeInvalidArgument, Reason: "division by zero"}
		}
		return d.A / d.B, nil
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(kernel.Call[division, int64](ctx, client, "divide", division{42, 6}, nil))
	_, err = kernel.Call[division, int64](ctx, client, "divide", division{42, 0}, nil)
	fmt.Println(err)
	// Output:
	// 7 <nil>
	// sluice: stream 3 (divide): ended by peer: INVALID_ARGUMENT: division by zero
}

// One encoding serves everything that a client, or a server, does; a call can
// have its own.
func ExampleCallOptions_encoding() {
	ctx := context.Background()
	srv := newServer()
	type person struct{ Name, Town string }
	in := &kernel.RegisterOptions{Encoding: kernel.JSON}
	err := kernel.Register(srv, "greet", func(_ context.Context, p person) (person, error) {
		return person{p.Name, "London"}, nil
	}, in)
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, &kernel.ClientOptions{Encoding: kernel.JSON})
	defer stop()

	fmt.Println(kernel.Call[person, person](ctx, client, "greet", person{Name: "Ada"}, nil))
	// Output:
	// {Ada London} <nil>
}

// A stream with a type for each direction.
func ExampleRegisterDuplex() {
	ctx := context.Background()
	srv := newServer()
	err := kernel.RegisterDuplex(srv, "lengths", func(ctx context.Context, d *kernel.Duplex[string, int32]) error {
		for text, err := range d.All(ctx) {
			if err != nil {
				return err
			}
			if err := d.Send(ctx, int32(len(text))); err != nil {
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

	d, err := kernel.OpenDuplex[int32, string](ctx, client, "lengths", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, word := range []string{"a", "bcd", ""} {
		_ = d.Send(ctx, word)
		fmt.Println(d.Receive(ctx))
	}
	_ = d.CloseSend()
	_, err = d.Receive(ctx)
	fmt.Println(err == io.EOF, d.Err())
	// Output:
	// 1 <nil>
	// 3 <nil>
	// 0 <nil>
	// true <nil>
}

// Many values up, one down.
func ExampleRegisterSource() {
	ctx := context.Background()
	srv := newServer()
	err := kernel.RegisterSource(srv, "sum", func(ctx context.Context, in *kernel.Source[int32]) (int64, error) {
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

	d, err := kernel.OpenDuplex[int64, int32](ctx, client, "sum", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range int32(101) {
		_ = d.Send(ctx, n)
	}
	fmt.Println(d.CloseAndReceive(ctx))
	// Output:
	// 5050 <nil>
}

// One value up, many down.
func ExampleRegisterSink() {
	ctx := context.Background()
	srv := newServer()
	err := kernel.RegisterSink(srv, "count", func(ctx context.Context, to uint8, out *kernel.Sink[uint8]) error {
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

	source, err := kernel.CallSource[uint8, uint8](ctx, client, "count", 3, nil)
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
func ExampleSink_C() {
	ctx := context.Background()
	srv := newServer()
	err := kernel.RegisterDuplex(srv, "square", func(ctx context.Context, d *kernel.Duplex[int32, int32]) error {
		for n, err := range d.All(ctx) {
			if err != nil {
				return err
			}
			if err := d.Send(ctx, n*n); err != nil {
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

	d, err := kernel.OpenDuplex[int32, int32](ctx, client, "square", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	next, out := int32(0), d.Out()
	for in := d.In(); in != nil; {
		select {
		case n, ok := <-in:
			if !ok {
				in = nil // and Err says why
				break
			}
			fmt.Println(n)
		case out <- next:
			if next++; next == 4 {
				_ = d.CloseSend()
				out = nil
			}
		case <-time.After(time.Minute):
			fmt.Println("nothing happens")
		}
	}
	fmt.Println(d.Err())
	// Output:
	// 0
	// 1
	// 4
	// 9
	// <nil>
}

// EncodingOf makes an encoding of a codec of the program's own.
func ExampleEncodingOf() {
	ctx := context.Background()
	srv := newServer()
	minutes := kernel.EncodingOf(minuteCodec{})
	err := kernel.Register(srv, "later", func(_ context.Context, d time.Duration) (time.Duration, error) {
		return d + time.Hour, nil
	}, &kernel.RegisterOptions{Encoding: minutes})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	fmt.Println(kernel.Call[time.Duration, time.Duration](ctx, client, "later", 5*time.Minute,
		&kernel.CallOptions{Encoding: minutes}))
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
		d, err := kernel.OpenDuplex[struct{}, string](ctx, c, "news", nil)
		if err != nil {
			return
		}
		for _, line := range []string{"it rains", "it shines"} {
			_ = d.Send(ctx, line)
		}
		_ = d.Close(ctx)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	lines := make(chan string)
	_, stop := start(srv, &kernel.ClientOptions{Handlers: map[string]func(context.Context, *kernel.Stream) error{
		"news": func(ctx context.Context, s *kernel.Stream) error {
			defer close(lines)
			src, err := kernel.SourceOf[string](s, nil)
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
		},
	}})
	defer stop()
	for line := range lines {
		fmt.Println(line)
	}
	// Output:
	// it rains
	// it shines
}
