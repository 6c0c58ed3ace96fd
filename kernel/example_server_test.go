package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A server that drains when it is asked to end: streams that are open may finish for as long
// as Limits.Drain.
func ExampleServer() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Limits: kernel.Limits{Drain: 20 * time.Second, MaxConns: 10_000},
	})
	if err != nil {
		log.Fatal(err)
	}
	srv.Handle("upper", upper)
	if err := srv.ListenAndServe(ctx, "127.0.0.1:7000"); !errors.Is(err, kernel.ErrServerClosed) {
		log.Fatal(err)
	}
}

// Listen makes the listener first, so that the address is known, and bound before the
// program gives up rights. A server can serve several.
func ExampleListen() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	ln, err := kernel.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()

	client, err := kernel.Dial(ctx, ln.Addr().String(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := client.Call(ctx, "upper", say("over tcp"), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	_ = client.Close()
	fmt.Println(srv.Close()) // cuts what is open; Shutdown lets it finish
	fmt.Println(errors.Is(<-served, kernel.ErrServerClosed))
	// Output:
	// OVER TCP <nil>
	// <nil>
	// true
}

// Draining tells all of a program that the server is about to end, for example what answers
// a load balancer's health check.
func ExampleServer_Draining() {
	srv := newServer()
	healthy := func() bool {
		select {
		case <-srv.Draining():
			return false
		default:
			return true
		}
	}
	fmt.Println(healthy())
	_ = srv.Shutdown(context.Background())
	fmt.Println(healthy())
	// Output:
	// true
	// false
}

// Options tells what a server's settings came to, for example for a page that shows them.
func ExampleServer_Options() {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 10}})
	if err != nil {
		fmt.Println(err)
		return
	}
	o := srv.Options()
	fmt.Println(o.Limits.MaxStreams, o.Limits.MaxMessage, o.Protocols[0].Name())
	// Output: 10 4194304 sluice
}

// Drain ends one connection in order, for example to have its client connect elsewhere.
func ExampleConn_Drain() {
	srv := newServer()
	srv.Handle("echo", echo)
	client, stop := start(srv, nil)
	defer stop()

	if s, err := client.Open(context.Background(), "echo", nil); err == nil {
		_, _, _ = s.Accepted(context.Background()) // now the server has the connection, too
		s.Abort(status.Cancelled, "enough")
	}
	for _, c := range srv.Conns() {
		fmt.Println(c.ID() > 0 && c.ID() == c.Snapshot().ID)
		c.Drain()
		<-c.Done() // once it has no streams
	}
	s, err := client.Open(context.Background(), "echo", nil) // on a new connection
	fmt.Println(client.Options().Conns, err)
	if err == nil {
		s.Abort(status.Cancelled, "enough")
	}
	// Output:
	// true
	// 1 <nil>
}

// What a server has counted since its start.
func ExampleServer_Stats() {
	srv := newServer()
	srv.Handle("broken", func(context.Context, *kernel.Stream) error { panic("a bug") })
	client, stop := start(srv, nil)
	defer stop()

	_, err := client.Call(context.Background(), "broken", pool.Message{}, nil)
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.Internal}))
	report := func(s kernel.Stats) { fmt.Println(s.Conns, s.Refused, s.Failed, s.Panics) }
	report(srv.Stats())
	// Output:
	// true
	// 1 0 0 1
}

// Loops shows the event loops, which all servers and clients of the process share.
func ExampleServer_Loops() {
	srv := newServer()
	defer srv.Close()
	late := func(l conn.LoopInfo) bool { return l.Lag > 50*time.Millisecond }
	for i, l := range srv.Loops() {
		if late(l) {
			fmt.Printf("loop %d with %d connections is late by %v\n", i, l.Conns, l.Lag)
		}
	}
}

// An offer is a peer's wish for streams. Its handler sees all of it before it answers.
func ExampleOffer() {
	ctx := context.Background()
	var handlers kernel.Handlers
	var review kernel.OfferHandler = func(_ context.Context, o *kernel.Offer) error {
		fmt.Println(o.Method(), o.Streams(), "streams, a call:", o.Unary(), o.Metadata().Get("user"))
		fmt.Println(o.Conn().Peer().Addr, o.Conn().Identity())
		if err := o.SetHeader(metadata.MD{{Key: "server", Value: "b"}}); err != nil {
			return err
		}
		if o.Streams() > 1 {
			o.Stream(1).Abort(status.Refused, "one is enough") // each is there before the answer
		}
		s, err := o.Accept(say("welcome"), &kernel.StreamOptions{MaxBatch: 8})
		if err != nil {
			return err
		}
		return s.CloseSend()
	}
	handlers.HandleOffer("chat", review)
	handlers.UseOffer(func(next kernel.OfferHandler) kernel.OfferHandler {
		return func(ctx context.Context, o *kernel.Offer) error {
			if o.Metadata().Get("user") == "" {
				return &status.HandlerError{Code: status.Unauthenticated, Reason: "who are you?"}
			}
			return next(ctx, o)
		}
	})
	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &handlers})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := start(srv, nil)
	defer stop()

	for _, user := range []string{"", "ann"} {
		s, err := client.Open(ctx, "chat", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "user", Value: user}}})
		if err != nil {
			fmt.Println(err)
			return
		}
		reply, header, err := s.Accepted(ctx)
		code, _ := status.Of(err)
		fmt.Printf("%v %q %q\n", code, reply.Bytes(), header.Get("server"))
	}
	// Output:
	// UNAUTHENTICATED "" ""
	// chat 1 streams, a call: false ann
	// pipe <nil>
	// OK "welcome" "b"
}

// A handler can take its offer, to answer by itself. What it calls finds the stream in the
// context.
func ExampleStream_Offer() {
	ctx := context.Background()
	srv := newServer()
	greet := func(ctx context.Context) string {
		s := kernel.FromContext(ctx)
		return "hello from " + s.Method()
	}
	srv.Handle("lobby", func(ctx context.Context, s *kernel.Stream) error {
		text := greet(s.Context())
		o := s.Offer()
		if _, err := o.AcceptAll(say(text), nil); err != nil {
			return err
		}
		return s.Close(ctx) // an offer's handler ends its stream itself
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "lobby", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, _, err := s.Accepted(ctx)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	// Output: hello from lobby <nil>
}

// Remove takes a handler out again, for example to put another one in its place.
func ExampleHandlers_Remove() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("price", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say("7")) })
	client, stop := start(srv, nil)
	defer stop()

	ask := func() {
		reply, err := client.Call(ctx, "price", pool.Message{}, nil)
		code, _ := status.Of(err)
		fmt.Printf("%q %v\n", reply.Bytes(), code)
	}
	ask()
	srv.Remove("price")
	ask()
	srv.Handle("price", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say("8")) })
	ask()
	// Output:
	// "7" OK
	// "" UNIMPLEMENTED
	// "8" OK
}

// Calls that nobody waits for can overtake each other, unless their order was asked for.
func ExampleHandlers_Ordered() {
	ctx := context.Background()
	srv := newServer()
	done := make(chan struct{})
	srv.Ordered("log")
	srv.Handle("log", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		defer m.Release()
		if len(m.Bytes()) == 0 {
			close(done)
			return nil
		}
		fmt.Printf("%s\n", m.Bytes())
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	for _, line := range []string{"one", "two", "three", ""} {
		if _, err := client.Call(ctx, "log", say(line), &kernel.CallOptions{NoWait: true}); err != nil {
			fmt.Println(err)
			return
		}
	}
	<-done
	// Output:
	// one
	// two
	// three
}

// Each side learns how many of its messages the other side's application did not read.
func ExampleStream_Discarded() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("one is enough", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		m.Release()
		return err
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "one is enough", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		if err := s.Send(ctx, say("x")); err != nil && !errors.Is(err, kernel.ErrStopped) {
			fmt.Println(err)
		}
	}
	fmt.Println(s.Close(ctx), s.Discarded() <= 2)
	// Output: <nil> true
}
