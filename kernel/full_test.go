package kernel_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What is wrong with an open is said at once, also where no stream is free: it takes no
// place, not even for a moment, that others would wait for.
func TestAnInvalidOpenTakesNoPlace(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil, func(t *testing.T, w *world) {
		w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		ctx, cancel := context.WithTimeout(w.Ctx, time.Minute)
		defer cancel()
		start := time.Now()
		for _, waiting := range []string{"nobody", "another"} {
			_, err := w.Client.Open(ctx, "x", &kernel.OpenOptions{Stream: kernel.StreamOptions{Window: -1}})
			isErr(t, waiting+" waits, a window below zero", err, kernel.ErrLimits)
			_, err = w.Client.OpenN(ctx, "x", nil, make([]kernel.StreamOptions, 2)...)
			isErr(t, waiting+" waits, two streams", err, kernel.ErrTooManyStreams)
			if d := time.Since(start); d != 0 {
				t.Errorf("%s waits: said after %v", waiting, d)
			}
			go func() { _, _ = w.Client.Open(ctx, "x", nil) }()
			synctest.Wait()
		}
	})
}

// Opens that wait get their streams in the order in which they came, and those that give up
// are in nobody's way.
func TestOpensWaitInOrder(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil, func(t *testing.T, w *world) {
		a, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		w.Srv.Handle("held", func(context.Context, *kernel.Stream) error { return nil })
		var order []int // one stream at a time
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
				if i%3 == 1 {
					ctx, cancel = context.WithTimeout(w.Ctx, time.Second)
				}
				defer cancel()
				s, err := w.Client.Open(ctx, "held", nil)
				if i%3 == 1 {
					isErr(t, "who gives up", err, kernel.ErrTooManyStreams)
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				time.Sleep(time.Second)
				s.Abort(status.Cancelled, "held for a second")
			})
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		a.Abort(status.Cancelled, "the first is over")
		all.Wait()
		if want := []int{0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18}; !slices.Equal(order, want) {
			t.Errorf("opened %v, want %v", order, want)
		}
	})
}

// No room is left unused while somebody waits for it: not by the Opens that give up at the
// moment of their turn, and not where several streams end at once.
func TestNoRoomIsLeftWhileOpensWait(t *testing.T) {
	for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnPooled} {
		for conns := 1; conns <= 3; conns++ {
			for streams := 1; streams <= 3; streams++ {
				so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: streams}}
				inBubble(t, so, &kernel.ClientOptions{ConnType: kind, Conns: conns}, func(t *testing.T, w *world) {
					w.Srv.Handle("held", func(ctx context.Context, _ *kernel.Stream) error {
						<-ctx.Done()
						return nil
					})
					places := conns
					if kind == kernel.ConnSingle {
						places *= streams
					}
					const opens = 36
					start := time.Now()
					var all sync.WaitGroup
					for i := range 2 * opens {
						all.Go(func() {
							ctx, cancel := context.WithTimeout(w.Ctx, 3*time.Second) // when others' streams end
							defer cancel()
							if i%2 == 0 {
								ctx = w.Ctx
							}
							s, err := w.Client.Open(ctx, "held", nil)
							if i%2 != 0 {
								if err == nil {
									s.Abort(status.Cancelled, "not needed")
								}
								return
							}
							if err != nil {
								t.Error(err)
								return
							}
							time.Sleep(time.Second)
							s.Abort(status.Cancelled, "held for a second")
						})
					}
					all.Wait()
					if d, most := time.Since(start), time.Duration((opens+places-1)/places)*time.Second; d > most {
						t.Errorf("kind %d, %d connections of %d streams: took %v, want at most %v", kind, conns, streams, d, most)
					}
				})
			}
		}
	}
}

// More streams than there may ever be are not waited for.
func TestMoreStreamsThanThereMayBeAreNotWaitedFor(t *testing.T) {
	for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnPooled, kernel.ConnShort} {
		so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 2}}
		inBubble(t, so, &kernel.ClientOptions{ConnType: kind}, func(t *testing.T, w *world) {
			ctx, cancel := context.WithTimeout(w.Ctx, time.Minute)
			defer cancel()
			_, err := w.Client.OpenN(ctx, "x", nil, make([]kernel.StreamOptions, 3)...)
			if !errors.Is(err, kernel.ErrTooManyStreams) || ctx.Err() != nil {
				t.Errorf("kind %d: %v", kind, err)
			}
		})
	}
}

// callTwice makes two calls at once that take a second each, of a server that takes one
// stream a connection and of a client that may have two, and dials the second so.
func callTwice(t *testing.T, kind kernel.ConnType, second func(ctx context.Context) error) time.Duration {
	t.Helper()
	srv, ln := serverOnly(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}})
	srv.Handle("second", func(ctx context.Context, s *kernel.Stream) error {
		time.Sleep(time.Second)
		return s.Send(ctx, text("reply"))
	})
	var dials atomic.Int32
	c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{
		Conns: 2, ConnType: kind, Backoff: kernel.Backoff{First: time.Hour},
		Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			if dials.Add(1) > 1 {
				if err := second(ctx); err != nil {
					return nil, err
				}
			}
			return ln.Dial(ctx, n, a)
		},
	}))
	ok(t, err)
	defer func() { _ = c.Close() }()
	start := time.Now()
	errs := make(chan error)
	for range 2 {
		go func() {
			reply, err := c.Call(t.Context(), "second", pool.Message{}, nil)
			reply.Release()
			errs <- err
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	return time.Since(start)
}

// A further connection is a help. Where it can't be made, or takes its time, the stream
// that is free meanwhile will do.
func TestAFullConnectionIsWaitedForWhileAnotherIsDialled(t *testing.T) {
	for name, second := range map[string]func(context.Context) error{
		"fails": func(context.Context) error { return errors.New("no more") },
		"takes its time": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnPooled} {
			synctest.Test(t, func(t *testing.T) {
				if d := callTwice(t, kind, second); d != 2*time.Second {
					t.Errorf("a second that %s: two calls took %v, want 2s", name, d)
				}
			})
		}
	}
}

// An Open that waits for a full connection goes on trying to make another, with pauses.
func TestAFurtherConnectionIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ln := serverOnly(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}})
		srv.Handle("stays", func(ctx context.Context, _ *kernel.Stream) error {
			<-ctx.Done()
			return nil
		})
		var dials atomic.Int32
		c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{
			Conns: 2, Backoff: kernel.Backoff{First: time.Second, Factor: 2, Jitter: kernel.None},
			Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				if n := dials.Add(1); n > 1 && n < 4 {
					return nil, errors.New("not yet")
				}
				return ln.Dial(ctx, n, a)
			},
		}))
		ok(t, err)
		_, err = c.Open(t.Context(), "stays", nil)
		ok(t, err)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = c.Open(ctx, "stays", nil)
		isErr(t, "who gives up", err, kernel.ErrTooManyStreams)
		isErr(t, "who gives up", err, context.DeadlineExceeded)
		_, err = c.Open(t.Context(), "stays", nil)
		ok(t, err)
		if d := time.Since(start); d != 3*time.Second || dials.Load() != 4 {
			t.Errorf("opened after %v and %d dials, want 3s and 4", d, dials.Load())
		}
		_ = c.Close()
	})
}

// An askedContext has who asks for its error call a function.
type askedContext struct {
	context.Context
	err atomic.Pointer[func() error]
}

func (c *askedContext) Err() error {
	if f := c.err.Load(); f != nil {
		return (*f)()
	}
	return nil
}

// An Open whose context ends at the moment of its turn has waited for a stream too, and says
// so.
func TestAnOpenThatEndsAtItsTurnHasWaited(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil, func(t *testing.T, w *world) {
		a, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		ctx := &askedContext{Context: t.Context()}
		failed := make(chan error, 1)
		go func() {
			_, err := w.Client.Open(ctx, "x", nil)
			failed <- err
		}()
		synctest.Wait()
		ended := func() error { return context.Canceled }
		ctx.err.Store(&ended)
		a.Abort(status.Cancelled, "its turn")
		err := <-failed
		isErr(t, "at its turn", err, kernel.ErrTooManyStreams)
		isErr(t, "at its turn", err, context.Canceled)
	})
}

// An Open that comes when another has its turn, and has not used it yet, waits behind those that
// wait already.
func TestWhoComesDuringATurnWaits(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("held", func(context.Context, *kernel.Stream) error { return nil })
		a, _ := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		var all sync.WaitGroup
		var order []string // one stream at a time
		open := func(ctx context.Context, name string) {
			all.Go(func() {
				s, err := w.Client.Open(ctx, "held", nil)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, name)
				time.Sleep(time.Second)
				s.Abort(status.Cancelled, "held for a second")
			})
			synctest.Wait()
		}
		first := &askedContext{Context: w.Ctx}
		open(first, "first")
		open(w.Ctx, "second")
		turn := func() error { // its turn has come
			first.err.Store(nil)
			open(w.Ctx, "third")
			return nil
		}
		first.err.Store(&turn)
		a.Abort(status.Cancelled, "over")
		all.Wait()
		if want := []string{"first", "second", "third"}; !slices.Equal(order, want) {
			t.Errorf("opened %v, want %v", order, want)
		}
	})
}
