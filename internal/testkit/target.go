package testkit

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A Target is a server under attack, with an honest client whose stream must not be
// affected.
type Target struct {
	T      *testing.T
	Srv    *kernel.Server
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Addr   string
	Client *kernel.Client // the honest one
	Log    *Journal
	Bubble bool // time is a bubble's

	honest *kernel.Stream
	said   int // by the honest client
}

// TargetLimits are small where a row has to reach them.
func TargetLimits() kernel.Limits {
	return kernel.Limits{MaxStreams: 100, ConnWindow: 1 << 20, MaxMessage: 1 << 20}
}

// NewTarget starts a server in memory or, without a bubble, on a TCP port.
func NewTarget(t *testing.T, bubble bool, opts kernel.ServerOptions) *Target {
	t.Helper()
	tg := &Target{T: t, Bubble: bubble, Log: &Journal{}, Addr: kerneltest.Target}
	if opts.Limits == (kernel.Limits{}) {
		opts.Limits = TargetLimits()
	}
	opts.Logger = tg.Log.Logger()
	srv, err := kernel.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	tg.Srv = srv
	tg.handlers()
	var ln net.Listener
	if bubble {
		mem := kerneltest.Listen()
		ln, tg.Dial = mem, mem.Dial
	} else {
		ln, tg.Dial = Listen(t), (&net.Dialer{}).DialContext
		tg.Addr = ln.Addr().String()
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return tg
}

// handlers registers the methods that attackers call.
func (tg *Target) handlers() {
	tg.Srv.Handle("echo", Echo)
	tg.Srv.Handle("stuck", func(ctx context.Context, _ *kernel.Stream) error {
		<-ctx.Done()
		return nil
	})
	tg.Srv.Handle("sink", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			m.Release()
			if err != nil {
				return err
			}
		}
		return nil
	})
	tg.Srv.Handle("early", func(context.Context, *kernel.Stream) error { return nil })
	tg.Srv.Handle("source", func(ctx context.Context, s *kernel.Stream) error {
		for {
			m := Sized(10_000, 's')
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return err
			}
		}
	})
}

// ConnectHonest connects the honest client.
func (tg *Target) ConnectHonest() {
	tg.T.Helper()
	client, err := kernel.Dial(context.Background(), tg.Addr, QuietClient(&kernel.ClientOptions{Dial: tg.Dial}))
	if err != nil {
		tg.T.Fatal(err)
	}
	tg.T.Cleanup(func() { _ = client.Close() })
	tg.Client = client
	if tg.honest, err = client.Open(context.Background(), "echo", nil); err != nil {
		tg.T.Fatal(err)
	}
	tg.Unharmed()
}

// Unharmed checks that the honest client's stream goes on.
func (tg *Target) Unharmed() {
	tg.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	tg.said++
	word := fmt.Sprint("still here ", tg.said)
	if err := tg.honest.Send(ctx, Text("%s", word)); err != nil {
		tg.T.Fatalf("the honest client can't send: %v", err)
	}
	m, err := tg.honest.Receive(ctx)
	if err != nil || string(m.Bytes()) != word {
		tg.T.Fatalf("the honest client received %q, %v", m.Bytes(), err)
	}
	m.Release()
}

// Settle waits until everything that can happen without more time has, or until
// cond holds.
func (tg *Target) Settle(cond func() bool) bool {
	if tg.Bubble {
		synctest.Wait()
		return cond()
	}
	for end := time.Now().Add(Patience / 4); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Connect dials and sends nothing.
func (tg *Target) Connect() net.Conn {
	tg.T.Helper()
	nc, err := tg.Dial(context.Background(), "tcp", tg.Addr)
	if err != nil {
		tg.T.Fatal(err)
	}
	tg.T.Cleanup(func() { _ = nc.Close() })
	return nc
}

// CutShort has attack send the first cut bytes of a conversation on the connection's first
// stream, of method "log", and end the connection. The stream's handler must receive
// the messages in want, none in part, and no clean end.
func (tg *Target) CutShort(cut int, want string, attack func()) {
	tg.T.Helper()
	got := make(chan string, 1)
	tg.Srv.Handle("log", func(_ context.Context, s *kernel.Stream) error {
		var b strings.Builder
		for m := range s.In() {
			fmt.Fprintf(&b, "%s ", m.Bytes())
			m.Release()
		}
		fmt.Fprint(&b, s.Err())
		got <- b.String()
		return nil
	})
	attack()
	log := <-got
	if !strings.HasPrefix(log, want+"sluice: stream 1 (log): connection lost: ") || !strings.Contains(log, "unexpected EOF") {
		tg.T.Errorf("cut at byte %d: %s", cut, log)
	}
	tg.Unharmed()
}

// Allocated is what f allocates, on all goroutines.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
