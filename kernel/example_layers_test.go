package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A layer above the kernel runs a function of its user as if it were a handler: Serve catches
// its panic, and Finish ends the stream by what it returned. Package rpc does so for streams
// that calls pass.
func ExampleStream_Serve() {
	ctx := context.Background()
	srv := newServer()
	numbers := func(ctx context.Context, s *kernel.Stream, handle func(int) error) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(m.Bytes()))
			if err != nil {
				s.AbortCause(status.InvalidArgument, "not a number", err) // the peer learns code and reason
				s.Conn().Logger().Info("bad number", "method", s.Method(), "error", err)
				return err
			}
			if err := handle(n); err != nil {
				return err
			}
		}
		return nil
	}
	ended := make(chan error, 1)
	srv.HandleOffer("numbers", func(_ context.Context, o *kernel.Offer) error {
		s, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			return err
		}
		go s.Serve(func(ctx context.Context) {
			s.Finish(numbers(ctx, s, func(n int) error { return s.Send(ctx, say(fmt.Sprint(2*n))) }))
			ended <- s.Err()
		})
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	for _, text := range []string{"21", "many"} {
		s, err := client.Open(ctx, "numbers", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = s.Send(ctx, say(text))
		_ = s.CloseSend()
		m, err := s.Receive(ctx)
		code, reason := status.Of(err)
		fmt.Printf("%q %v %q\n", m.Bytes(), code, reason)
		fmt.Println("cause on the server:", errors.Is(<-ended, strconv.ErrSyntax))
	}
	// Output:
	// "42" OK ""
	// cause on the server: false
	// "" INVALID_ARGUMENT "not a number"
	// cause on the server: true
}

// A layer that keeps options for later can check them at once.
func ExampleStreamOptions_Validate() {
	fmt.Println((&kernel.StreamOptions{InBuffer: kernel.None}).Validate())
	fmt.Println((&kernel.StreamOptions{MaxBatch: -1}).Validate())
	// Output:
	// <nil>
	// sluice: limit out of range: StreamOptions.MaxBatch is -1
}

// Where every stream has a connection of its own, as on Seastar's wire, a call passes a
// stream by its number: CallRef is the caller's end of that, TakeStream the handler's.
func ExampleStream_CallRef() {
	ctx := context.Background()
	protocols := []frame.Protocol{&seastar.Protocol{}}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: protocols})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Handle(kernel.Verb(1), func(ctx context.Context, call *kernel.Stream) error {
		m, err := call.Receive(ctx)
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(string(m.Bytes()), 10, 64)
		if err != nil {
			return err
		}
		passed, err := call.Conn().TakeStream(ctx, id)
		if err != nil {
			return err
		}
		go passed.Serve(func(ctx context.Context) {
			passed.Finish(passed.Send(ctx, say("found you")))
		})
		return call.Send(ctx, say("taken"))
	})
	client, stop := start(srv, &kernel.ClientOptions{Protocols: protocols})
	defer stop()

	s, err := client.Open(ctx, "", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	on, id := s.CallRef()
	reply, err := on.Call(ctx, kernel.Verb(1), say(fmt.Sprint(id)), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	_, err = client.Call(ctx, kernel.Verb(1), pool.Message{}, &kernel.CallOptions{Metadata: metadata.MD{{Key: "k"}}})
	fmt.Println(err != nil)
	fmt.Println(errors.Is(s.SetTrailer(nil), kernel.ErrNotSupported)) // its ends carry no metadata
	// Output:
	// taken <nil>
	// found you <nil>
	// true
	// true
}
