package kernel_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A stream and a call can have limits of their own for what they receive and send, below
// those of their client and server.
func TestTheLimitsOfOneStream(t *testing.T) {
	const most = 1000
	sized := func(n int) pool.Message { return pool.Copy(bytes.Repeat([]byte("s"), n)) }
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		for _, c := range []struct {
			name  string
			opts  kernel.CallOptions
			n     int
			wants func(err error)
		}{
			{"the longest reply", kernel.CallOptions{MaxReceive: most}, most, func(err error) { ok(t, err) }},
			{"a longer reply", kernel.CallOptions{MaxReceive: most}, most + 1, func(err error) { wantCode(t, err, status.TooLarge) }},
			{"the longest request", kernel.CallOptions{MaxSend: most}, most, func(err error) { ok(t, err) }},
			{"a longer request", kernel.CallOptions{MaxSend: most}, most + 1, func(err error) { isErr(t, "Call", err, kernel.ErrTooLarge) }},
			{"limits above the client's", kernel.CallOptions{MaxReceive: 1 << 30, MaxSend: 1 << 30}, most + 1, func(err error) { ok(t, err) }},
		} {
			req := sized(c.n)
			reply, err := w.Client.Call(w.Ctx, "echo", req, &c.opts)
			if err != nil {
				req.Release() // it is still ours
			}
			reply.Release()
			c.wants(err)
			if t.Failed() {
				t.Fatal(c.name)
			}
		}

		_, err := w.Client.Open(w.Ctx, "pair", &kernel.OpenOptions{Stream: kernel.StreamOptions{MaxReceive: -1}})
		isErr(t, "a limit below zero", err, kernel.ErrLimits)

		// Each side of a stream has its own.
		a, b := w.Pair(kernel.StreamOptions{MaxReceive: most, MaxSend: 2 * most}, kernel.StreamOptions{MaxSend: 2 * most})
		long := sized(2*most + 1)
		isErr(t, "Send", a.Send(w.Ctx, long), kernel.ErrTooLarge)
		isErr(t, "TrySend", a.TrySend(long), kernel.ErrTooLarge)
		long.Release()
		for _, n := range []int{2 * most, 0, 1} {
			ok(t, a.Send(w.Ctx, sized(n)))
			m, err := b.Receive(w.Ctx)
			ok(t, err)
			if m.Len() != n {
				t.Errorf("%d bytes, want %d", m.Len(), n)
			}
			m.Release()
		}
		ok(t, b.Send(w.Ctx, sized(most)))
		m, err := a.Receive(w.Ctx)
		ok(t, err)
		m.Release()
		ok(t, b.Send(w.Ctx, sized(most+1)))
		_, err = a.Receive(w.Ctx)
		wantCode(t, err, status.TooLarge)
		_, err = b.Receive(w.Ctx)
		if b.Conn().Caps().Status {
			wantCode(t, err, status.TooLarge)
		} else if err == nil {
			t.Error("the sender does not hear of it")
		}

		a, _ = w.Pair(kernel.StreamOptions{MaxSend: most}, kernel.StreamOptions{})
		a.Out() <- sized(most + 1)
		<-a.Done()
		w.WantErr(a, status.TooLarge)
	})
}

// A limit of the server's streams is one for requests too, and a reply has that of the
// options with which it was asked for.
func TestTheLimitsOfRequestsAndReplies(t *testing.T) {
	const most = 100
	sized := func(n int) pool.Message { return pool.Copy(bytes.Repeat([]byte("s"), n)) }
	overAll(t, &kernel.ServerOptions{Stream: kernel.StreamOptions{MaxReceive: most}}, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Srv.HandleOffer("offer", func(ctx context.Context, o *kernel.Offer) error {
			m, err := o.Request(ctx)
			if err != nil {
				return err
			}
			defer m.Release()
			s, err := o.Accept(m.Clone(), nil)
			if err != nil {
				return err
			}
			return s.Close(ctx)
		})
		for _, n := range []int{most, most + 1, 100 * most} {
			req := sized(n)
			reply, err := w.Client.Call(w.Ctx, "echo", req, nil)
			reply.Release()
			if n <= most {
				ok(t, err)
			} else {
				req.Release() // it is still ours
				wantCode(t, err, status.TooLarge)
			}
			for _, limit := range []int{0, 50} {
				s, err := w.Client.Open(w.Ctx, "offer", &kernel.OpenOptions{Request: sized(n), Stream: kernel.StreamOptions{MaxReceive: limit}})
				ok(t, err)
				m, _, err := s.Accepted(w.Ctx)
				m.Release()
				if n <= most && limit == 0 {
					ok(t, err)
					ok(t, s.Close(w.Ctx))
					continue
				}
				if err == nil {
					_, err = s.Receive(w.Ctx)
				}
				wantCode(t, err, status.TooLarge)
				s.Abort(status.Cancelled, "over")
			}
		}
	})
}
