package kernel_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

var errUnreachable = errors.New("unreachable")

// A line notes when a client dials. While it is broken nothing comes of that.
type line struct {
	ln     *kerneltest.Listener
	broken atomic.Bool
	takes  atomic.Int64 // until that is known
	mu     sync.Mutex
	at     []time.Time
}

func (l *line) dial(ctx context.Context, n, a string) (net.Conn, error) {
	l.mu.Lock()
	l.at = append(l.at, time.Now())
	spins := len(l.at) > 100
	l.mu.Unlock()
	if spins { // or time would stand still
		time.Sleep(time.Second)
	}
	time.Sleep(time.Duration(l.takes.Load()))
	if l.broken.Load() {
		return nil, errUnreachable
	}
	return l.ln.Dial(ctx, n, a)
}

// gaps are the times between the dials so far, which are forgotten.
func (l *line) gaps() (ds []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.at); i++ {
		ds = append(ds, l.at[i].Sub(l.at[i-1]))
	}
	l.at = nil
	return ds
}

// doubling has pauses of 1, 2, 4 and 4 s.
var doubling = kernel.Backoff{First: time.Second, Most: 4 * time.Second, Factor: 2, Jitter: kernel.None}

// Connections of one stream are dialled with the pauses that others are.
func TestShortConnectionsAreDialledWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln := serverOnly(t, nil)
		l := &line{ln: ln}
		c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
			ConnType: kernel.ConnShort, Backoff: doubling, Dial: l.dial,
		}))
		ok(t, err)
		open := func() error {
			_, err := c.Open(t.Context(), "x", nil)
			return err
		}
		l.broken.Store(true)
		for range 5 {
			isErr(t, "Open", open(), errUnreachable)
		}
		if got := l.gaps(); !slices.Equal(got, []time.Duration{1e9, 2e9, 4e9, 4e9}) {
			t.Errorf("dialled after %v", got)
		}
		l.broken.Store(false)
		ok(t, open())
		// The success starts over, and failures of several at once are one.
		const takes = 100 * time.Millisecond
		l.broken.Store(true)
		l.takes.Store(int64(takes))
		var wg sync.WaitGroup
		start := time.Now()
		for range 5 {
			wg.Go(func() { isErr(t, "one of several", open(), errUnreachable) })
		}
		wg.Wait()
		if d := time.Since(start); d != takes {
			t.Errorf("after a success it took %v to fail", d)
		}
		l.takes.Store(0)
		start = time.Now()
		isErr(t, "the next", open(), errUnreachable)
		if d := time.Since(start); d != time.Second {
			t.Errorf("after five failures at once dialled after %v, want 1s", d)
		}
		// A wait that is canceled ends at once, and does not count as a failure to dial.
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = c.Open(ctx, "x", nil)
		isErr(t, "who gives up", err, context.DeadlineExceeded)
		isErr(t, "who gives up", err, errUnreachable)
		if d := time.Since(start); d != 1500*time.Millisecond {
			t.Errorf("given up after %v", d)
		}
		l.broken.Store(false)
		ok(t, open())
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("opened after %v, want 3s", d)
		}
		_ = c.Close()
	})
}

// A dedicated connection is dialled with the pauses that others are, while streams go
// on being opened on the one that there is.
func TestDedicatedConnectionsAreDialledWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, ln := serverOnly(t, nil)
		srv.Handle("echo", echo)
		l := &line{ln: ln}
		c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{Backoff: doubling, Dial: l.dial}))
		ok(t, err)
		l.broken.Store(true)
		l.gaps()
		for range 4 {
			_, err := c.Open(t.Context(), "echo", &kernel.OpenOptions{Dedicated: true})
			isErr(t, "Open", err, errUnreachable)
			start := time.Now()
			reply, err := c.Call(t.Context(), "echo", text("x"), nil)
			ok(t, err)
			reply.Release()
			if d := time.Since(start); d != 0 {
				t.Errorf("a call on the connection that there is took %v", d)
			}
		}
		if got := l.gaps(); !slices.Equal(got, []time.Duration{1e9, 2e9, 4e9}) {
			t.Errorf("dialled after %v", got)
		}
		_ = c.Close()
	})
}

// A spent protocol is the native one, with connections that have no number left for a
// stream.
type (
	spent        struct{ native.Protocol }
	spentSession struct{ frame.Session }
)

func (p spent) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	s, err := p.Protocol.Handshake(ctx, rw, g)
	return spentSession{s}, err
}

func (s spentSession) Caps() frame.Caps {
	c := s.Session.Caps()
	c.MaxStream = 0
	return c
}

// One Open is one attempt, also where the connection is made and takes no streams.
func TestAConnectionThatTakesNoStreamsIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ln := serverOnly(t, nil)
		l := &line{ln: ln}
		c, err := kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
			Protocols: []frame.Protocol{spent{}}, Backoff: doubling, Dial: l.dial,
		}))
		ok(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for range 5 {
			_, err := c.Open(ctx, "x", nil)
			var ce *status.ConnError
			if !errors.As(err, &ce) || !errors.Is(err, kernel.ErrGoingAway) {
				t.Errorf("Open: %v", err)
			}
		}
		if got := l.gaps(); !slices.Equal(got, []time.Duration{0, 1e9, 2e9, 4e9}) {
			t.Errorf("five opens dialled after %v", got)
		}
		_ = c.Close()
	})
}

// One Open is one attempt, also where the connection is made and ends before the stream
// is opened, or just then.
func TestAnOpenMakesOneAttempt(t *testing.T) {
	ln := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for nc, err := ln.Accept(); err == nil; nc, err = ln.Accept() {
			_ = nc.Close()
		}
	}()
	var dials atomic.Int32
	c, err := kernel.NewClient("brpc://"+ln.Addr().String(), quietClient(&kernel.ClientOptions{
		Protocols: []frame.Protocol{strm.Protocol{}},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}))
	ok(t, err)
	for range 20 {
		dials.Store(0)
		s, err := c.Open(t.Context(), "x", nil)
		var ce *status.ConnError
		switch {
		case err == nil:
			wantClosed(t, "Done", s.Done())
		case !errors.As(err, &ce):
			t.Errorf("Open: %v, want a ConnError", err)
		}
		if n := dials.Load(); n > 1 {
			t.Fatalf("%d dials for one Open: %v", n, err)
		}
	}
	ok(t, c.Close())
	_ = ln.Close()
	<-done
}

// Close differs from a failure to dial, also while a dial is under way or waited for.
func TestCloseEndsDialsWithErrClosed(t *testing.T) {
	hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	fails := func(context.Context, string, string) (net.Conn, error) { return nil, errUnreachable }
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){"dials": hangs, "waits": fails} {
		for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnShort} {
			synctest.Test(t, func(t *testing.T) {
				c, err := kernel.NewClient("a:1", quietClient(&kernel.ClientOptions{
					ConnType: kind, Dial: dial, Backoff: kernel.Backoff{First: time.Hour, Most: time.Hour},
				}))
				ok(t, err)
				if name == "waits" {
					_, err := c.Open(t.Context(), "x", nil)
					isErr(t, "the first", err, errUnreachable)
				}
				closed := make(chan error)
				start := time.Now()
				go func() {
					time.Sleep(time.Second)
					closed <- c.Close()
				}()
				_, err = c.Open(t.Context(), "x", nil)
				if !errors.Is(err, kernel.ErrClosed) || errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
					t.Errorf("kind %d, Close while Open %s: %v after %v", kind, name, err, time.Since(start))
				}
				ok(t, <-closed)
			})
		}
	}
}

// Where ctx ends while a client dials, the error is a status.ConnError that says so; in the
// pause after a failure it names that too.
func TestAContextThatEndsADialIsAConnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		short := func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), time.Second)
		}
		for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnShort} {
			broken.Store(false)
			co := quietClient(&kernel.ClientOptions{
				ConnType: kind, Backoff: kernel.Backoff{First: time.Hour, Most: time.Hour},
				Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					if !broken.Load() {
						<-ctx.Done()
					}
					return nil, errUnreachable
				},
			})
			want := func(what string, err, cause error) {
				t.Helper()
				var ce *status.ConnError
				if !errors.As(err, &ce) || ce.Op != "dial" || !errors.Is(err, cause) {
					t.Errorf("kind %d: %s: %v", kind, what, err)
				}
			}
			ctx, cancel := short()
			_, err := kernel.Dial(ctx, "a:1", co)
			cancel()
			want("Dial", err, context.DeadlineExceeded)
			c := must[*kernel.Client](t)(kernel.NewClient("a:1", co))
			ctx, cancel = short()
			_, err = c.Open(ctx, "x", nil)
			cancel()
			want("Open", err, context.DeadlineExceeded)
			ok(t, c.Close())

			broken.Store(true)
			c = must[*kernel.Client](t)(kernel.NewClient("a:1", co))
			_, err = c.Open(t.Context(), "x", nil)
			want("a failure", err, errUnreachable)
			ctx, cancel = short()
			_, err = c.Open(ctx, "x", nil)
			cancel()
			want("in the pause", err, context.DeadlineExceeded)
			want("in the pause", err, errUnreachable)
			ok(t, c.Close())
		}
	})
}

// A server may take its time to authenticate a client, if the client lets it.
func TestAClientWaitsForAuthenticate(t *testing.T) {
	l := kernel.Limits{Authenticate: time.Minute}
	so := &kernel.ServerOptions{Limits: l, Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
		time.Sleep(30 * time.Second)
		return "known", nil
	}}
	for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnShort} {
		synctest.Test(t, func(t *testing.T) {
			if err := callOnce(t, so, &kernel.ClientOptions{ConnType: kind, Limits: l}); err != nil {
				t.Errorf("kind %d: %v", kind, err)
			}
		})
	}
}

// A timeless connection takes no deadline.
type timeless struct {
	net.Conn
	closed *atomic.Bool
}

func (timeless) SetDeadline(time.Time) error { return errors.ErrUnsupported }

func (c timeless) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// A connection that can't be used is closed.
func TestAConnectionWithoutDeadlinesIsClosed(t *testing.T) {
	var closed atomic.Bool
	_, err := kernel.Dial(t.Context(), "a:1", quietClient(&kernel.ClientOptions{Dial: func(context.Context, string, string) (net.Conn, error) {
		mine, _ := net.Pipe()
		return timeless{mine, &closed}, nil
	}}))
	isErr(t, "Dial", err, errors.ErrUnsupported)
	if !closed.Load() {
		t.Error("it is still open")
	}
}

// An empty list of protocols is none, and the default.
func TestNoProtocolsAreTheDefault(t *testing.T) {
	none := []frame.Protocol{}
	synctest.Test(t, func(t *testing.T) {
		ok(t, callOnce(t, &kernel.ServerOptions{Protocols: none}, &kernel.ClientOptions{Protocols: none}))
	})
}

// The pauses are those that the options ask for: zero is the default of each part, None
// is zero by name, and the longest bounds the first too.
func TestBackoffIsAsAskedFor(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		b    kernel.Backoff
		want []time.Duration
	}{
		"by default, without jitter":  {kernel.Backoff{Jitter: kernel.None}, []time.Duration{s, 1600 * time.Millisecond, 2560 * time.Millisecond}},
		"a longest below the default": {kernel.Backoff{Most: s / 10, Jitter: kernel.None}, []time.Duration{s / 10, s / 10, s / 10}},
		"that does not grow":          {kernel.Backoff{Factor: kernel.None, Jitter: kernel.None}, []time.Duration{s, s, s}},
		"that does not grow, by 1":    {kernel.Backoff{Factor: 1, Jitter: kernel.None}, []time.Duration{s, s, s}},
		"no first":                    {kernel.Backoff{First: kernel.None}, []time.Duration{0, 0, 0}},
		"no longest":                  {kernel.Backoff{Most: kernel.None}, []time.Duration{0, 0, 0}},
		"a large factor":              {kernel.Backoff{Factor: math.MaxFloat64, Jitter: kernel.None}, []time.Duration{s, 120 * s, 120 * s}},
		"no bound":                    {kernel.Backoff{Factor: 10, Most: kernel.Unlimited, Jitter: kernel.None}, []time.Duration{s, 10 * s, 100 * s}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &line{}
			l.broken.Store(true)
			client, err := kernel.NewClient("a:1", quietClient(&kernel.ClientOptions{Backoff: c.b, Dial: l.dial}))
			ok(t, err)
			for range 4 {
				_, err := client.Conn(t.Context())
				isErr(t, name, err, errUnreachable)
			}
			if got := l.gaps(); !slices.Equal(got, c.want) {
				t.Errorf("%s: dialled after %v, want %v", name, got, c.want)
			}
			_ = client.Close()
		})
	}
}

// A pause without end is waited for as long as the context lets it.
func TestAPauseMayBeUnlimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		l.broken.Store(true)
		client, err := kernel.NewClient("a:1", quietClient(&kernel.ClientOptions{
			Backoff: kernel.Backoff{First: kernel.Unlimited, Most: kernel.Unlimited, Jitter: 0.99}, Dial: l.dial,
		}))
		ok(t, err)
		_, err = client.Conn(t.Context())
		isErr(t, "the first", err, errUnreachable)
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		_, err = client.Conn(ctx)
		isErr(t, "the second", err, context.DeadlineExceeded)
		_ = client.Close()
	})
}

// A backoff that makes no sense is refused.
func TestABackoffOutOfRangeIsRefused(t *testing.T) {
	for _, b := range []kernel.Backoff{
		{First: -time.Second}, {Most: -time.Second}, {Factor: 0.5}, {Factor: -2}, {Factor: math.NaN()}, {Factor: math.Inf(1)},
		{Jitter: 1}, {Jitter: -0.5}, {Jitter: math.NaN()},
	} {
		if _, err := kernel.NewClient("a:1", &kernel.ClientOptions{Backoff: b}); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
