package interop

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A client that gives up calls while their handlers go on, of which the server is not told,
// does not run into its guard against those who go on when they were refused.
func TestBrpcCallsThatAreGivenUpCountAsOpen(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 8}, Protocols: []frame.Protocol{strm.Protocol{MaxCalls: 8}}}
	inBubble(t, so, &kernel.ClientOptions{Protocols: so.Protocols}, func(t *testing.T, w *world) {
		w.Srv.Handle("slow", func(_ context.Context, s *kernel.Stream) error {
			time.Sleep(50 * time.Millisecond)
			return s.Send(context.Background(), text("late"))
		})
		w.Srv.Handle("fast", echo)
		conn := w.Client.Conns()[0]
		var mu sync.Mutex
		results := map[status.Code]int{}
		ended := time.Now().Add(10 * time.Second)
		var wg sync.WaitGroup
		call := func(method string, patience time.Duration, errs bool) {
			for time.Now().Before(ended) {
				ctx, cancel := context.WithCancel(w.Ctx) // a deadline would be the handler's too
				time.AfterFunc(patience, cancel)
				m := text("x")
				reply, err := w.Client.Call(ctx, method, m, nil)
				cancel()
				if err != nil {
					m.Release()
				}
				reply.Release()
				code := status.OK
				var se *status.StreamError
				switch {
				case errors.As(err, &se):
					code = se.Code
				case errors.Is(err, context.Canceled):
					code = status.Cancelled
				case err != nil:
					t.Error(err)
					return
				}
				mu.Lock()
				if errs || code == status.OK {
					results[code]++
				}
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		}
		for range 4 {
			wg.Go(func() { call("slow", 5*time.Millisecond, true) })
		}
		wg.Go(func() { call("fast", time.Second, false) })
		wg.Wait()
		if err := conn.Err(); err != nil {
			t.Fatal(err, results)
		}
		if n := results[status.Refused]; n > 40 {
			t.Errorf("%d calls of the slow ones were refused", n)
		}
		if n := results[status.Cancelled]; n < 1000 {
			t.Errorf("%d calls were given up", n)
		}
		// Eight handlers at a time, of 50 ms: 1,600 calls. The fast one has its share of them.
		if n := results[status.OK]; n < 100 {
			t.Errorf("%d fast calls", n)
		}
	})
}

// A refusal tells how many there can be: what was given up counts until it is answered.
func TestBrpcAnAnswerMakesRoom(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		answer := func(i int, errno int64, text string) {
			meta := join(str(2, join(num(1, errno), str(2, text))), num(4, p.request(i).num(4)))
			p.send(packed("PRPC", meta, []byte("reply")))
		}
		requests := func() int { return len(p.all(func(w *word) bool { return w.magic == "PRPC" })) }
		call := func(patience time.Duration) chan error {
			over := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				m := text("x")
				reply, err := c.Call(ctx, "a/b", m, nil)
				if err != nil {
					m.Release()
				}
				reply.Release()
				over <- err
			}()
			synctest.Wait()
			return over
		}
		for range 3 { // three are given up
			if err := <-call(time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		waits := call(time.Minute)
		start := time.Now()
		answer(3, 2004, "[E2004]too many") // it is tried again
		time.Sleep(50 * time.Millisecond)
		if n := requests(); n != 4 {
			t.Fatalf("%d requests though three are open, and were too many", n)
		}
		answer(0, 0, "")
		if n := requests(); n != 5 || time.Since(start) > 100*time.Millisecond {
			t.Fatalf("%d requests after an answer", n)
		}
		answer(4, 0, "")
		ok(t, <-waits)
		// Two are owed: one more may go. And then, a second later, another.
		first, second := call(time.Minute), call(time.Minute)
		if n := requests(); n != 6 {
			t.Errorf("%d requests, want 6", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := requests(); n != 7 {
			t.Errorf("%d requests a second later, want 7", n)
		}
		answer(5, 0, "")
		answer(6, 0, "")
		ok(t, <-first)
		ok(t, <-second)
		answer(1, 0, "")
		answer(2, 0, "")
		// Nothing is owed: there is no limit.
		var all []chan error
		for range 10 {
			all = append(all, call(time.Minute))
		}
		if n := requests(); n != 17 {
			t.Errorf("%d requests, want 17", n)
		}
		for i, over := range all {
			answer(7+i, 0, "")
			ok(t, <-over)
		}
	})
}

// Streams that were given up before their answer count too, and a refusal where nothing was
// given up is no limit.
func TestBrpcStreamsThatAreGivenUpCountAsOpen(t *testing.T) {
	for _, gives := range []bool{true, false} {
		brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
			open := func() (*kernel.Stream, error) {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				defer cancel()
				s, err := c.Open(ctx, "x", &kernel.OpenOptions{Stream: kernel.StreamOptions{Context: context.Background()}})
				synctest.Wait()
				return s, err
			}
			var ss []*kernel.Stream
			for i := range 3 {
				s, err := open()
				if err != nil {
					t.Fatal(err)
				}
				ss = append(ss, s)
				if i == 0 && gives {
					s.Abort(status.Cancelled, "given up")
					synctest.Wait()
				}
			}
			r := p.request(2)
			meta := join(str(2, join(num(1, 2004), str(2, "[E2004]too many"))), num(4, r.num(4)))
			p.send(strmData(r.streams()[0], -1, string(packed("PRPC", meta, nil))))
			wantCode(t, ss[2].Err(), status.Refused)
			s, err := open()
			if gives != errors.Is(err, kernel.ErrTooManyStreams) {
				t.Errorf("given up %v: %v", gives, err)
			}
			if s != nil {
				ss = append(ss, s)
			}
			if gives {
				p.answerRequest(0, "", 50) // which is reset: it was given up
				if s, err = open(); err != nil {
					t.Errorf("after the answer: %v", err)
				}
				ss = append(ss, s)
			}
			for _, s := range ss {
				s.Abort(status.Cancelled, "enough")
			}
			synctest.Wait()
		})
	}
}
