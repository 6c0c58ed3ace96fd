package kernel_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Who stands still, and because of whom? The client's stream waits until the server's
// application reads.
func ExampleStream_Snapshot() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "stuck", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := (<-offers).Accept(pool.Message{}, nil); err != nil { // and never read
		fmt.Println(err)
		return
	}
	go func() { // sends until there is no credit
		for {
			m := pool.New(1 << 10)
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return
			}
		}
	}()
	report := func(side string, conns []*kernel.Conn, on kernel.BlockedOn) {
		for {
			for _, c := range conns {
				for s := range c.EachStream {
					if i := s.Snapshot(); i.BlockedOn == on {
						fmt.Printf("%s: stream %d (%s) is blocked on its %s\n", side, i.ID, i.Method, i.BlockedOn)
						return
					}
				}
			}
			time.Sleep(time.Millisecond) // not yet
		}
	}
	report("client", client.Conns(), kernel.BlockedOnStreamCredit)
	report("server", srv.Conns(), kernel.BlockedOnReader)
	// Output:
	// client: stream 1 (stuck) is blocked on its stream credit
	// server: stream 1 (stuck) is blocked on its reader
}

// metrics counts streams that have ended, by method and code.
type metrics struct {
	mu      sync.Mutex
	ended   map[string]int
	latency time.Duration // the longest until a stream was accepted
}

func (m *metrics) ConnBegun(*kernel.Conn)                  {}
func (m *metrics) ConnEnded(*kernel.Conn, kernel.ConnInfo) {}
func (m *metrics) StreamBegun(*kernel.Stream)              {}

func (m *metrics) StreamEnded(_ *kernel.Stream, i kernel.StreamInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended[fmt.Sprint(i.Method, " ", i.Code)]++
	m.latency = max(m.latency, i.Latency)
}

// An Observer turns ends of streams into metrics.
func ExampleObserver() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("greet", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, say("hello"))
	})
	srv.Handle("fail", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.NotFound, Reason: "no such thing"}
	})
	m := &metrics{ended: map[string]int{}}
	client, stop := start(srv, &kernel.ClientOptions{Observer: m})
	defer stop()

	for _, method := range []string{"greet", "greet", "fail"} {
		reply, _ := client.Call(ctx, method, pool.Message{}, nil)
		reply.Release()
	}
	_ = client.Close() // the observer is told of everything before it returns
	fmt.Println(m.ended["greet OK"], m.ended["fail NOT_FOUND"], m.latency > 0)
	// Output: 2 1 true
}

// wires counts connections, by the protocol that they speak.
type wires map[string]int

func (w wires) ConnBegun(c *kernel.Conn)                      { w[c.Protocol()]++ }
func (w wires) ConnEnded(*kernel.Conn, kernel.ConnInfo)       {}
func (w wires) StreamBegun(*kernel.Stream)                    {}
func (w wires) StreamEnded(*kernel.Stream, kernel.StreamInfo) {}

// A client with two Observers. Others are the Handler of the admin pages, and what contrib/prometheus
// and contrib/otel have.
func ExampleObservers() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("fail", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.NotFound, Reason: "no such thing"}
	})
	m, w := &metrics{ended: map[string]int{}}, wires{}
	client, stop := start(srv, &kernel.ClientOptions{Observer: kernel.Observers(m, w)})
	defer stop()

	_, err := client.Call(ctx, "fail", pool.Message{}, nil)
	fmt.Println(status.Of(err))
	_ = client.Close() // each is told of everything before it returns
	fmt.Println(m.ended, w)
	// Output:
	// NOT_FOUND no such thing
	// map[fail NOT_FOUND:1] map[sluice:1]
}
