package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Dial makes the first connection, or fails. The client makes others when it needs them.
func ExampleClient() {
	ctx := context.Background()
	client, err := kernel.Dial(ctx, "127.0.0.1:7000", &kernel.ClientOptions{
		Conns:   4, // further ones are made where the server allows no more streams on those there are
		Backoff: kernel.Backoff{First: 100 * time.Millisecond, Most: 5 * time.Second, Jitter: kernel.None},
		Limits:  kernel.Limits{MaxMessage: 16 << 20, IdleConn: kernel.Unlimited},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Println(client.Stats().Conns)
}

// NewClient makes no connection: the first Open does. State tells what the client is doing,
// and gives a channel that is closed when that changes.
func ExampleClient_State() {
	say := map[kernel.State]string{
		kernel.StateIdle:             "no connection; the next Open makes one",
		kernel.StateConnecting:       "a connection is being made",
		kernel.StateReady:            "streams can be opened",
		kernel.StateTransientFailure: "dialling has failed; it is tried again after a pause",
		kernel.StateShutdown:         "closed",
	}
	client, err := kernel.NewClient("unix:@sluice-example-nobody-listens", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	state, changed := client.State()
	fmt.Println(state, "-", say[state])
	_, err = client.Open(context.Background(), "any", nil)
	var failed *status.ConnError
	fmt.Println(errors.As(err, &failed) && failed.Op == "dial")
	<-changed
	state, _ = client.State()
	fmt.Println(state, "-", say[state])
	_ = client.Close()
	state, _ = client.State()
	fmt.Println(state, "-", say[state])
	_, err = client.Open(context.Background(), "any", nil)
	fmt.Println(errors.Is(err, kernel.ErrClosed))
	// Output:
	// IDLE - no connection; the next Open makes one
	// true
	// TRANSIENT_FAILURE - dialling has failed; it is tried again after a pause
	// SHUTDOWN - closed
	// true
}

// How streams share connections: with ConnSingle they share those of the client, with
// ConnPooled a connection carries the streams of one Open at a time and is used again, with
// ConnShort it ends with them.
func ExampleConnType() {
	ctx := context.Background()
	for _, how := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnPooled, kernel.ConnShort} {
		srv := newServer()
		srv.Handle("upper", upper)
		client, stop := start(srv, &kernel.ClientOptions{ConnType: how})
		shared := map[*kernel.Conn]bool{}
		for range 3 {
			s, err := client.Open(ctx, "upper", nil)
			if err != nil {
				fmt.Println(err)
				return
			}
			shared[s.Conn()] = true
		}
		fmt.Println("3 streams on", len(shared))
		stop()
	}
	// Output:
	// 3 streams on 1
	// 3 streams on 3
	// 3 streams on 3
}

// Whatever takes a Caller works with a client and with a connection. Caps tells what the
// protocol can carry, without a connection.
func ExampleCaller_both() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	twice := func(c kernel.Caller) {
		on, err := c.Conn(ctx) // a connection returns itself
		if err != nil {
			fmt.Println(err)
			return
		}
		caps := c.Caps()
		fmt.Println(caps.Name, caps.HalfClose, caps == on.Caps())
		ss, err := c.OpenN(ctx, "upper", nil, kernel.StreamOptions{}) // several streams with one request
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = ss[0].Send(ctx, say("twice"))
		m, err := ss[0].Receive(ctx)
		fmt.Printf("%s %v\n", m.Bytes(), err)
	}
	fmt.Println(client.Caps() == client.Conns()[0].Caps())
	twice(client)
	on, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	itself, err := on.Conn(ctx)
	fmt.Println(itself == on, err)
	twice(on)
	// Output:
	// true
	// sluice true true
	// TWICE <nil>
	// true <nil>
	// sluice true true
	// TWICE <nil>
}

// Bound is the time limit of a call, for those who make calls out of streams: the options'
// Timeout, or 60 s where neither they nor the context have one.
func ExampleCallOptions_Bound() {
	ctx, cancel := (&kernel.CallOptions{Timeout: time.Hour}).Bound(context.Background())
	defer cancel()
	deadline, ok := ctx.Deadline()
	fmt.Println(ok, time.Until(deadline).Round(time.Minute))
	ctx, cancel = (&kernel.CallOptions{Timeout: kernel.Unlimited}).Bound(context.Background())
	defer cancel()
	_, ok = ctx.Deadline()
	fmt.Println(ok)
	// Output:
	// true 1h0m0s
	// false
}

// Verb is a method of a protocol whose methods are numbers.
func ExampleVerb() {
	fmt.Println(kernel.Verb(7))
	// Output: #7
}
