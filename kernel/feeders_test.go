package kernel_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// wantInClosed checks that a channel is closed by now, behind whatever is in its buffer.
func wantInClosed(t *testing.T, in <-chan pool.Message) {
	t.Helper()
	for {
		select {
		case m, open := <-in:
			if !open {
				return
			}
			m.Release()
		default:
			t.Error("In is open")
			return
		}
	}
}

// An offer's stream can be read before it is accepted. Doing so is no reason for a
// goroutine to be left when the connection is closed, whatever became of the stream.
func TestReadersOfOffersEndWithTheConnection(t *testing.T) {
	for _, reset := range []bool{false, true} {
		inBubble(t, nil, nil, func(t *testing.T, w *world) {
			w.Loose = true
			w.AskOffers()
			a := must[*kernel.Stream](t)(w.Client.Open(w.Ctx, "m", nil))
			for range 30 {
				ok(t, a.TrySend(text("hello")))
			}
			synctest.Wait()
			o := w.Offer()
			in := o.Stream(0).In()
			synctest.Wait()
			if reset {
				a.Abort(status.Aborted, "enough")
				synctest.Wait()
			}
			ok(t, o.Conn().Close())
			synctest.Wait()
			if n := feeders(); n > 0 {
				t.Errorf("reset %v: %d goroutines feed a channel", reset, n)
			}
			wantInClosed(t, in)
			drain(o.Stream(0))
		})
	}
}

// A connection that was lost gives those that belong to it a moment. Closing it on this
// side takes that back.
func TestClosingALostConnectionEndsItsChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := kerneltest.Listen()
		srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(nil)))
		srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			for range 60 {
				if err := s.Send(ctx, text("hello")); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return nil
		})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		var mu sync.Mutex
		var ncs []net.Conn
		client := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := ln.Dial(ctx, network, addr)
				mu.Lock()
				defer mu.Unlock()
				ncs = append(ncs, nc)
				return nc, err
			},
		})))
		parent := must[*kernel.Conn](t)(client.Conn(context.Background()))
		s := must[*kernel.Stream](t)(client.Open(context.Background(), "m", &kernel.OpenOptions{Dedicated: true}))
		in := s.In()
		(<-in).Release()
		synctest.Wait()
		_ = ncs[0].Close()
		<-parent.Done()
		if s.Err() != nil {
			t.Errorf("the stream has ended at once: %v", s.Err())
		}
		ok(t, parent.Close())
		synctest.Wait()
		if n := feeders(); s.Err() == nil || n > 0 {
			t.Errorf("the stream's error is %v, %d goroutines feed a channel", s.Err(), n)
		}
		wantInClosed(t, in)
		drain(s)
		ok(t, client.Close())
		ok(t, srv.Close())
		<-served
	})
}
