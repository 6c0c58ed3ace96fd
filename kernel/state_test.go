package kernel_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// statesOf collects the states of c, each with the time since now, until StateShutdown.
func statesOf(c *kernel.Client) <-chan []string {
	all := make(chan []string, 1)
	start := time.Now()
	go func() {
		var ss []string
		for {
			s, changed := c.State()
			ss = append(ss, string(s)+" "+time.Since(start).String())
			if s == kernel.StateShutdown {
				all <- ss
				return
			}
			<-changed
		}
	}()
	return all
}

// A client tells what it does about its connections, and every change of that.
func TestStatesOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ln := serverOnly(t, nil)
		l := &line{ln: ln}
		l.takes.Store(int64(100 * time.Millisecond))
		l.broken.Store(true)
		c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{Backoff: doubling, Dial: l.dial}))
		ok(t, err)
		states := statesOf(c)
		time.Sleep(time.Second) // idle
		_, err = c.Open(t.Context(), "x", nil)
		isErr(t, "Open", err, errUnreachable)
		l.broken.Store(false)
		_, err = c.Open(t.Context(), "x", nil) // waits for the pause, and dials
		ok(t, err)
		time.Sleep(time.Second)
		_ = srv.Close()
		time.Sleep(time.Second)
		_ = c.Close()
		want := []string{
			"IDLE 0s", "CONNECTING 1s", "TRANSIENT_FAILURE 1.1s", "CONNECTING 2.1s", "READY 2.2s", "IDLE 3.2s", "SHUTDOWN 4.2s",
		}
		if got := <-states; !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
		if s, changed := c.State(); s != kernel.StateShutdown {
			t.Errorf("%v after Close", s)
		} else {
			wantOpen(t, "the last state's channel", changed)
		}
	})
}

// A server that drains leaves its client idle, while streams are still open.
func TestADrainedClientIsIdle(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("wait", untilGoingAway)
		s := w.Open("wait")
		w.Want(s, "running")
		state, changed := w.Client.State()
		if state != kernel.StateReady {
			t.Errorf("%v, want READY", state)
		}
		done := make(chan error, 1)
		go func() { done <- w.Srv.Shutdown(w.Ctx) }()
		<-changed
		if state, _ := w.Client.State(); state != kernel.StateIdle {
			t.Errorf("%v, want IDLE", state)
		}
		w.WantEOF(s)
		ok(t, s.CloseSend())
		ok(t, <-done)
	})
}

// untilGoingAway is a handler that could run for ever.
func untilGoingAway(ctx context.Context, s *kernel.Stream) error {
	if err := s.Send(ctx, text("running")); err != nil {
		return err
	}
	select {
	case <-s.GoingAway():
		return nil
	case <-ctx.Done():
		return errors.New("cut")
	}
}

// Who watches the state is told of failures too that dedicated connections have.
func TestStateOfDedicatedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln := serverOnly(t, nil)
		l := &line{ln: ln}
		l.broken.Store(true)
		c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{ConnType: kernel.ConnShort, Backoff: doubling, Dial: l.dial}))
		ok(t, err)
		states := statesOf(c)
		time.Sleep(time.Second)
		_, err = c.Open(t.Context(), "x", nil)
		isErr(t, "Open", err, errUnreachable)
		synctest.Wait()
		l.broken.Store(false)
		s, err := c.Open(t.Context(), "x", nil)
		ok(t, err)
		s.Abort(status.Cancelled, "")
		synctest.Wait()
		ok(t, c.Close())
		want := []string{"IDLE 0s", "TRANSIENT_FAILURE 1s", "IDLE 2s", "SHUTDOWN 2s"}
		if got := <-states; !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
	})
}

// With WaitForReady an Open goes on while nobody can be reached, with the usual pauses.
func TestWaitForReady(t *testing.T) {
	for name, open := range map[string]func(ctx context.Context, c *kernel.Client) error{
		"Open": func(ctx context.Context, c *kernel.Client) error {
			s, err := c.Open(ctx, "echo", &kernel.OpenOptions{WaitForReady: true})
			if err == nil {
				err = s.Close(ctx)
			}
			return err
		},
		"Call": func(ctx context.Context, c *kernel.Client) error {
			reply, err := c.Call(ctx, "echo", say("x"), &kernel.CallOptions{WaitForReady: true, Timeout: kernel.Unlimited})
			reply.Release()
			return err
		},
	} {
		for kind, ct := range map[string]kernel.ConnType{"single": kernel.ConnSingle, "pooled": kernel.ConnPooled, "short": kernel.ConnShort} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, ln := serverOnly(t, &kernel.ServerOptions{Handlers: serving("echo", echo)})
					l := &line{ln: ln}
					l.broken.Store(true)
					c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{ConnType: ct, Backoff: doubling, Dial: l.dial}))
					ok(t, err)
					defer c.Close()
					time.AfterFunc(5*time.Second, func() { l.broken.Store(false) })
					start := time.Now()
					ok(t, open(t.Context(), c)) // dials after 0, 1, 3 and 7 s
					if d := time.Since(start); d != 7*time.Second {
						t.Errorf("opened after %v, want 7s", d)
					}
				})
			})
		}
	}
}

// What waiting can't change ends it, and so does the context, which then says why it took
// so long.
func TestWaitForReadyEnds(t *testing.T) {
	open := func(ctx context.Context, c *kernel.Client) error {
		_, err := c.Open(ctx, "x", &kernel.OpenOptions{WaitForReady: true})
		return err
	}
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, ln := serverOnly(t, &kernel.ServerOptions{Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
				return nil, errors.New("no")
			}})
			c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
			ok(t, err)
			defer c.Close()
			isErr(t, "Open", open(t.Context(), c), &status.ConnError{Code: status.Unauthenticated})
		})
	})
	for name, end := range map[string]func(c *kernel.Client, cancel func()){
		"context": func(_ *kernel.Client, cancel func()) { cancel() },
		"Close":   func(c *kernel.Client, _ func()) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, ln := serverOnly(t, nil)
				l := &line{ln: ln}
				l.broken.Store(true)
				c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{Backoff: doubling, Dial: l.dial}))
				ok(t, err)
				defer c.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- open(ctx, c) }()
				time.Sleep(10 * time.Second)
				end(c, cancel)
				switch err := <-ended; name {
				case "context":
					isErr(t, "Open", err, context.Canceled)
					isErr(t, "Open", err, errUnreachable)
				default:
					isErr(t, "Open", err, kernel.ErrClosed)
				}
			})
		})
	}
}

// Whoever asks is told of a drain: by the server, on the connection, on a handler's stream.
func TestNoticesOfADrain(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("wait", untilGoingAway)
		s := w.Open("wait")
		w.Want(s, "running")
		ours, theirs := s.Conn(), w.Srv.Conns()[0]
		wantOpen(t, "Draining", w.Srv.Draining())
		wantOpen(t, "GoingAway", theirs.GoingAway())
		wantOpen(t, "GoingAway", ours.GoingAway())
		done := make(chan error, 1)
		go func() { done <- w.Srv.Shutdown(w.Ctx) }()
		w.WantEOF(s)
		w.endSend(s)
		ok(t, <-done)
		wantClosed(t, "Draining", w.Srv.Draining())
		wantClosed(t, "GoingAway", theirs.GoingAway())
		testkit.Handled(w.World, ours.GoingAway())
	})
}

// The end of Serve's context is the beginning of a drain.
func TestServesContextDrains(t *testing.T) {
	for name, runs := range map[string]time.Duration{"in time": 5 * time.Second, "too long": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{Drain: 7 * time.Second}}))
				ok(t, err)
				srv.Handle("run", func(ctx context.Context, s *kernel.Stream) error {
					s.In() // accepts
					select {
					case <-time.After(runs):
						return s.Send(ctx, text("ran"))
					case <-ctx.Done():
						return nil
					}
				})
				ln := kerneltest.Listen()
				ctx, cancel := context.WithCancel(t.Context())
				served := make(chan error, 1)
				go func() { served <- srv.Serve(ctx, ln) }()
				c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: ln.Dial}))
				ok(t, err)
				defer c.Close()
				s, err := c.Open(t.Context(), "run", nil)
				ok(t, err)
				_, _, err = s.Accepted(t.Context())
				ok(t, err)
				start := time.Now()
				cancel()
				m, err := s.Receive(t.Context())
				if runs < time.Minute {
					ok(t, err)
					m.Release()
					ok(t, s.Close(t.Context()))
				} else if !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) || !errors.Is(err, &status.ConnError{Code: status.GoingAway}) {
					t.Errorf("%v, want that the drain was over", err)
				}
				isErr(t, "Serve", <-served, kernel.ErrServerClosed)
				if d := time.Since(start); d < min(runs, 7*time.Second) || d > 8*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// How a connection has ended reaches its streams on both sides, each way apart from the
// others. brpc's wire has no word for it: there a closed connection is a lost one.
func TestEndsOfConnections(t *testing.T) {
	type told struct {
		code   status.Code
		remote bool
		says   string
	}
	for name, c := range map[string]struct {
		end            func(w *world)
		client, server told
	}{
		"Server.Close": {
			func(w *world) { _ = w.Srv.Close() },
			told{status.Unavailable, true, "the server was closed"}, told{says: "closed"},
		},
		"server's Conn.Close": {
			func(w *world) { _ = w.Srv.Conns()[0].Close() },
			told{status.Cancelled, true, "the connection was closed"}, told{says: "closed"},
		},
		"Client.Close": {
			func(w *world) { _ = w.Client.Close() },
			told{says: "closed"}, told{status.Cancelled, true, "the client was closed"},
		},
		"client's Conn.Close": {
			func(w *world) { _ = w.Client.Conns()[0].Close() },
			told{says: "closed"}, told{status.Cancelled, true, "the connection was closed"},
		},
		"a drain that takes too long": {
			func(w *world) {
				ctx, cancel := context.WithTimeout(w.Ctx, time.Millisecond)
				defer cancel()
				isErr(w.T, "Shutdown", w.Srv.Shutdown(ctx), context.DeadlineExceeded)
			},
			told{status.GoingAway, true, "the time to drain is over"}, told{status.GoingAway, false, "the time to drain is over"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			overAll(t, nil, nil, func(t *testing.T, w *world) {
				w.Loose = true
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				c.end(w)
				for side, got := range map[string]struct {
					s    *kernel.Stream
					want told
				}{"client": {a, c.client}, "server": {b, c.server}} {
					_, err := got.s.Receive(w.Ctx)
					isErr(t, side, err, &status.StreamError{Code: status.ConnectionLost})
					var ce *status.ConnError
					want := got.want
					if w.other != nil && want.remote {
						want = told{status.ConnectionLost, false, "EOF"}
					}
					if !errors.As(err, &ce) || ce.Code != want.code || ce.Remote != want.remote || !strings.Contains(err.Error(), want.says) {
						t.Errorf("%s: %v, want %+v", side, err, want)
					}
				}
			})
		})
	}
}
