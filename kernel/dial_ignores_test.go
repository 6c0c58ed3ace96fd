package kernel_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// closeCounted counts the calls of its Close.
type closeCounted struct {
	net.Conn
	n *atomic.Int32
}

func (c closeCounted) Close() error { c.n.Add(1); return c.Conn.Close() }

// A Dial that ignores its context holds up neither Close nor who dials. What it returns late
// is closed.
func TestADialThatIgnoresItsContext(t *testing.T) {
	for name, o := range map[string]kernel.OpenOptions{"shared": {}, "dedicated": {Dedicated: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := kerneltest.Listen()
				srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(nil)))
				served := make(chan error, 1)
				go func() { served <- srv.Serve(context.Background(), ln) }()
				stuck, closes, blocks := make(chan struct{}), new(atomic.Int32), !o.Dedicated
				client := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
					Dial: func(_ context.Context, network, addr string) (net.Conn, error) {
						if blocks {
							<-stuck
						}
						nc, err := ln.Dial(context.Background(), network, addr)
						return closeCounted{nc, closes}, err
					},
				})))
				if o.Dedicated {
					_, err := client.Conn(t.Context())
					ok(t, err)
					blocks = true
				}
				opened := make(chan error, 1)
				go func() {
					_, err := client.Open(context.Background(), "echo", &o)
					opened <- err
				}()
				synctest.Wait()
				start := time.Now()
				ok(t, client.Close())
				if err := <-opened; err == nil {
					t.Error("a stream was opened")
				}
				if d := time.Since(start); d > 200*time.Millisecond { // a GOAWAY may linger
					t.Errorf("Close has taken %v", d)
				}
				before := closes.Load()
				close(stuck)
				synctest.Wait()
				if n := closes.Load() - before; n != 1 {
					t.Errorf("the late connection was closed %d times", n)
				}
				ok(t, srv.Close())
				isErr(t, "Serve", <-served, kernel.ErrServerClosed)
			})
		})
	}
}

// Who opens a stream waits for as long as the context says, whatever Dial does; the attempt
// as a whole has a limit too.
func TestADialThatIgnoresItsContextHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		client := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
			Dial: func(context.Context, string, string) (net.Conn, error) { <-stuck; return nil, net.ErrClosed },
		})))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := client.Open(ctx, "echo", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := client.Open(t.Context(), "echo", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(stuck)
		ok(t, client.Close())
	})
}
