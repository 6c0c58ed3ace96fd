package retry_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/retry"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A service's reads are tried again, its other calls where no handler has seen them.
func ExampleNew() {
	ctx := context.Background()
	srv := testkit.ExampleServer()
	tries := 0
	rpc.HandleUnary(srv, "shop.Shop/GetPrice", func(context.Context, string) (int, error) {
		if tries++; tries < 3 {
			return 0, &status.HandlerError{Code: status.Unavailable, Reason: "not yet"}
		}
		return 7, nil
	}, nil)
	client, stop := testkit.StartExample(srv, nil)
	defer stop()

	c, err := retry.New(client, &retry.Options{
		Methods: map[string]retry.Policy{
			"shop.Shop/GetPrice": {
				Attempts: 4,
				Codes:    []status.Code{status.Unavailable, status.ConnectionLost},
				Backoff:  kernel.Backoff{First: time.Millisecond},
			},
			"": {}, // three attempts where they do no harm
		},
		Budget: retry.Budget{Ratio: 0.1},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	price, err := rpc.Call[int](ctx, c, "shop.Shop/GetPrice", "tea", nil)
	fmt.Println(price, err, "after", tries, "attempts")
	// Output: 7 <nil> after 3 attempts
}

// A second attempt begins when the first has taken long, and the first answer counts.
func ExamplePolicy_hedge() {
	ctx := context.Background()
	srv := testkit.ExampleServer()
	var calls atomic.Int64
	srv.Handle("search", func(ctx context.Context, s *kernel.Stream) error {
		if calls.Add(1) == 1 {
			<-ctx.Done() // slow
			return ctx.Err()
		}
		return s.Send(ctx, pool.MessageOf([]byte("found")))
	})
	client, stop := testkit.StartExample(srv, nil)
	defer stop()

	c, err := retry.New(client, &retry.Options{
		Methods: map[string]retry.Policy{"search": {Attempts: 2, Hedge: 10 * time.Millisecond}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := c.Call(ctx, "search", pool.Message{}, nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	reply.Release()
	// Output: found <nil>
}

// A server that has too much to do says when to come again.
func ExampleKeyPushback() {
	srv := testkit.ExampleServer()
	full := true
	srv.Handle("work", func(ctx context.Context, s *kernel.Stream) error {
		if full {
			full = false
			return &status.HandlerError{Code: status.ResourceExhausted, Details: metadata.MD{{Key: retry.KeyPushback, Value: "20"}}}
		}
		return s.Send(ctx, pool.MessageOf([]byte("done")))
	})
	client, stop := testkit.StartExample(srv, nil)
	defer stop()

	c, err := retry.New(client, &retry.Options{Methods: map[string]retry.Policy{"": {Codes: []status.Code{status.ResourceExhausted}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	start := time.Now()
	reply, err := c.Call(context.Background(), "work", pool.Message{}, nil)
	fmt.Printf("%s %v %v\n", reply.Bytes(), err, time.Since(start) >= 20*time.Millisecond)
	reply.Release()
	// Output: done <nil> true
}

// Whether an error is worth another attempt, and does no harm, for loops of one's own.
func ExampleSafe() {
	client, stop := testkit.StartExample(testkit.ExampleServer(), nil)
	defer stop()
	_, err := client.Call(context.Background(), "nobody", pool.Message{}, nil)
	fmt.Println(retry.Safe(err), retry.Useful(err))
	// Output: true false
}

// Streams, and all else, go to the Caller that is wrapped.
func ExampleCaller() {
	ctx := context.Background()
	srv := testkit.ExampleServer()
	srv.Handle("echo", testkit.Echo)
	client, stop := testkit.StartExample(srv, nil)
	defer stop()
	c, err := retry.New(client, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := c.Open(ctx, "echo", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	several, err := c.OpenN(ctx, "echo", nil, kernel.StreamOptions{}, kernel.StreamOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := c.Conn(ctx)
	fmt.Println(conn == s.Conn(), len(several), c.Caps().MaxGroup > 1, err)
	fmt.Println(c.Close())
	// Output:
	// true 2 true <nil>
	// <nil>
}
