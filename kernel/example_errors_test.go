package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What sends fail with. The message still belongs to the caller then.
func ExampleStream_Send_errors() {
	ctx := context.Background()
	srv, err := kernel.NewServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 1 << 10}})
	if err != nil {
		fmt.Println(err)
		return
	}
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()
	open := func() (*kernel.Stream, *kernel.Offer) {
		s, err := client.Open(ctx, "any", nil)
		if err != nil {
			panic(err)
		}
		return s, <-offers
	}

	s, o := open()
	fmt.Println(errors.Is(o.Stream(0).Send(ctx, say("early")), kernel.ErrNotAccepted))
	if _, err := o.Accept(pool.Message{}, &kernel.StreamOptions{NoReceive: true}); err != nil {
		fmt.Println(err)
	}
	_, _, _ = s.Accepted(ctx)
	fmt.Println(errors.Is(s.Send(ctx, say("nobody reads")), kernel.ErrNotReadable))

	s, o = open()
	peer, _ := o.Accept(pool.Message{}, nil)
	fmt.Println(errors.Is(s.Send(ctx, pool.New(1<<10+1)), kernel.ErrTooLarge))
	peer.CloseReceive(status.OK)
	<-s.SendDone()
	fmt.Println(errors.Is(s.Send(ctx, say("late")), kernel.ErrStopped))

	s, _ = open()
	slot := <-s.Writable()
	slot.Cancel()
	fmt.Println(errors.Is(slot.Send(say("again")), kernel.ErrSlotUsed))
	_ = s.CloseSend()
	err = s.Send(ctx, say("late"))
	fmt.Println(errors.Is(err, kernel.ErrSendClosed), errors.Is(err, kernel.ErrClosed), errors.Is(err, net.ErrClosed))
	// Output:
	// true
	// true
	// true
	// true
	// true
	// true true true
}

// A congested connection writes nothing while it is told so.
type congested struct {
	net.Conn
	on    *atomic.Bool
	over  context.Context
	close context.CancelFunc
}

func (c congested) Write(p []byte) (int, error) {
	if c.on.Load() {
		<-c.over.Done()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c congested) Close() error {
	c.close()
	return c.Conn.Close()
}

// ErrNoRoom is ErrWouldBlock where the stream has credit: what its connection has accepted
// and not written fills Limits.OutQueue.
func ExampleStream_TrySend_noRoom() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	ln := kerneltest.Listen()
	go func() { _ = srv.Serve(ctx, ln) }()
	defer srv.Close()
	var jam atomic.Bool
	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := ln.Dial(ctx, network, addr)
			over, end := context.WithCancel(context.Background())
			return congested{c, &jam, over, end}, err
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	s, err := client.Open(ctx, "upload", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err = (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{Window: 8 << 20}); err != nil {
		fmt.Println(err)
		return
	}
	_, _, _ = s.Accepted(ctx)
	jam.Store(true)
	for err == nil {
		m := pool.New(4 << 10)
		if err = s.TrySend(m); err != nil {
			m.Release()
		}
	}
	fmt.Println(errors.Is(err, kernel.ErrWouldBlock), errors.Is(err, kernel.ErrNoRoom))
	fmt.Println(s.Snapshot().SendGranted > s.Snapshot().SendUsed)
	// Output:
	// true true
	// true
}

// The errors of opens.
func ExampleClient_Open_errors() {
	ctx := context.Background()
	srv, err := kernel.NewServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1, MaxMetadata: 1 << 10}})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Handle("hold", func(ctx context.Context, s *kernel.Stream) error {
		<-s.Done()
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	_, err = client.Open(ctx, "hold", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "Not Allowed"}}})
	fmt.Println(errors.Is(err, kernel.ErrMetadataKey))
	_, err = client.Open(ctx, "hold", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "k", Value: string(make([]byte, 1<<10))}}})
	fmt.Println(errors.Is(err, kernel.ErrMetadataTooLarge))
	_, err = client.Open(ctx, "hold", &kernel.OpenOptions{Stream: kernel.StreamOptions{Window: -5}})
	fmt.Println(errors.Is(err, kernel.ErrLimits))

	c, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	held, err := c.Open(ctx, "hold", nil) // a Client would wait for the next one, a Conn does not
	fmt.Println(err)
	_, err = c.Open(ctx, "hold", nil)
	fmt.Println(errors.Is(err, kernel.ErrTooManyStreams))

	go func() { _ = srv.Shutdown(ctx) }()
	<-c.GoingAway()
	_, err = c.Open(ctx, "hold", nil)
	fmt.Println(errors.Is(err, kernel.ErrGoingAway))
	held.Abort(status.Cancelled, "")
	// Output:
	// true
	// true
	// true
	// <nil>
	// true
	// true
}

// Further errors, each where it comes from.
func Example_errors() {
	ctx := context.Background()
	srv := newServer()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, kerneltest.Listen()) }()
	fmt.Println(srv.Close(), errors.Is(<-served, kernel.ErrServerClosed))

	srv = newServer()
	srv.HandleOffer("twice", func(_ context.Context, o *kernel.Offer) error {
		s, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			return err
		}
		_, again := o.Accept(pool.Message{}, nil)
		fmt.Println(errors.Is(again, kernel.ErrAnswered))
		return s.CloseSend()
	})
	srv.Handle("silent", func(context.Context, *kernel.Stream) error { return nil })
	client, stop := start(srv, nil)
	defer stop()
	s, err := client.Open(ctx, "twice", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = s.Receive(ctx)
	s.In()
	<-s.Batches() // closed: In was first
	fmt.Println(errors.Is(s.Err(), kernel.ErrChannelInUse))
	_, err = client.Call(ctx, "silent", pool.Message{}, nil)
	fmt.Println(errors.Is(err, kernel.ErrNoReply))
	_, err = kernel.NewServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: -1}})
	fmt.Println(errors.Is(err, kernel.ErrLimits))
	// Output:
	// <nil> true
	// true
	// true
	// true
	// true
}
