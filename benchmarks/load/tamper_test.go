package load

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
)

// tamper is a peer whose streams tamper with messages: change turns one message into those
// that arrive instead.
type tamper struct {
	peer.Peer
	change func(n int, p []byte) [][]byte
}

func (t tamper) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := t.Peer.Dial(ctx, addr, o)
	return tamperConn{c, t.change}, err
}

type tamperConn struct {
	peer.Conn
	change func(n int, p []byte) [][]byte
}

func (c tamperConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return &tamperStream{Stream: s, change: c.change, oneWay: m == peer.Discard}, err
}

// tamperStream changes echoes as they arrive, and one-way messages as they go.
type tamperStream struct {
	peer.Stream
	change func(n int, p []byte) [][]byte
	oneWay bool
	n      int
	queue  [][]byte
}

func (s *tamperStream) Recv() ([]byte, error) {
	for len(s.queue) == 0 {
		p, err := s.Stream.Recv()
		if err != nil || s.oneWay {
			return p, err
		}
		s.queue = s.changed(p)
	}
	p := s.queue[0]
	s.queue = s.queue[1:]
	return p, nil
}

func (s *tamperStream) Send(p []byte) error {
	if !s.oneWay {
		return s.Stream.Send(p)
	}
	for _, q := range s.changed(p) {
		b := s.Stream.Buf(len(q))
		copy(b, q)
		if err := s.Stream.Send(b); err != nil {
			return err
		}
	}
	return nil
}

func (s *tamperStream) changed(p []byte) [][]byte {
	s.n++
	return s.change(s.n, append([]byte(nil), p...))
}

// at does f to the tenth message only.
func at(f func(p []byte) [][]byte) func(int, []byte) [][]byte {
	return func(n int, p []byte) [][]byte {
		if n == 10 {
			return f(p)
		}
		return [][]byte{p}
	}
}

func TestEveryViolationIsSeen(t *testing.T) {
	var held []byte
	for name, tt := range map[string]struct {
		change func(int, []byte) [][]byte
		want   report.Checks
	}{
		"lost":       {at(func([]byte) [][]byte { return nil }), report.Checks{Lost: 1}},
		"duplicated": {at(func(p []byte) [][]byte { return [][]byte{p, p} }), report.Checks{Duplicated: 1}},
		"corrupted":  {at(func(p []byte) [][]byte { p[40] ^= 1; return [][]byte{p} }), report.Checks{Corrupted: 1}},
		"cut short":  {at(func(p []byte) [][]byte { return [][]byte{p[:50]} }), report.Checks{Corrupted: 1}},
		"reordered": {func(n int, p []byte) [][]byte {
			switch n {
			case 10:
				held = p
				return nil
			case 11:
				return [][]byte{p, held}
			}
			return [][]byte{p}
		}, report.Checks{Reordered: 1}},
	} {
		for _, w := range []Workload{Echo, OneWay} {
			for _, rate := range []Rate{0, 2000} {
				c := short(t, "pingpong", func(c *Config) {
					c.Workload, c.Outstanding, c.Rate, c.Duration = w, 8, rate, 150*time.Millisecond
				})
				out := mustRun(t, tamper{raw.New(), tt.change}, c)
				got := out.Checks
				if got.Messages < 12 {
					t.Errorf("%s, %s, rate %v: only %d messages", name, w, rate, got.Messages)
				}
				got.Messages = 0
				if got != tt.want {
					t.Errorf("%s, %s, rate %v: got %+v, want %+v", name, w, rate, got, tt.want)
				}
			}
		}
	}
}

func TestChurnSeesViolationsToo(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(int, []byte) [][]byte
		count  func(report.Checks) uint64
	}{
		"lost":       {func(int, []byte) [][]byte { return nil }, func(c report.Checks) uint64 { return c.Lost }},
		"duplicated": {func(_ int, p []byte) [][]byte { return [][]byte{p, p} }, func(c report.Checks) uint64 { return c.Duplicated }},
		"corrupted":  {func(_ int, p []byte) [][]byte { p[9] ^= 4; return [][]byte{p} }, func(c report.Checks) uint64 { return c.Corrupted }},
	} {
		out := mustRun(t, tamper{raw.New(), tt.change}, short(t, "churn", nil))
		if n := tt.count(out.Checks); n == 0 || n != out.Checks.Violations() || n != out.Checks.Messages {
			t.Errorf("%s: %+v", name, out.Checks)
		}
	}
}

// A server that does not send an echo must not hang the run.
func TestAMessageThatNeverComesEndsTheDrain(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Drain, c.Duration = 200*time.Millisecond, 50*time.Millisecond })
	out := mustRun(t, stuck{raw.New(), 0}, c)
	if out.Checks.Lost != 1 || out.Errors != 1 {
		t.Errorf("%+v, %d errors", out.Checks, out.Errors)
	}
}

// Unconfirmed messages are no success: on streams that hang until the drain is over, and
// echoes that come after it.
func TestUnconfirmedMessagesAreCounted(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"one way": func(c *Config) { c.Workload = OneWay },
		"churn":   func(c *Config) { c.Workload = Churn },
		"delayed": func(c *Config) {
			c.At = []Fault{{At: 0, Kind: DelayAll, Delay: time.Minute, For: time.Hour}}
		},
	} {
		c := short(t, "pingpong", func(c *Config) { c.Drain = 100 * time.Millisecond })
		change(&c)
		var p peer.Peer = stuck{raw.New(), 0}
		if len(c.At) > 0 {
			p = raw.New()
		}
		out := mustRun(t, p, c)
		if out.Checks.Unconfirmed == 0 || out.Checks.Violations() != 0 || out.Errors != 1 || out.Status() != "DELIVERY UNCONFIRMED" {
			t.Errorf("%s: %+v, %d errors, %s", name, out.Checks, out.Errors, out.Status())
		}
	}
}

// stuck never receives after so many messages.
type stuck struct {
	peer.Peer
	after int
}

func (s stuck) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := s.Peer.Dial(ctx, addr, o)
	return stuckConn{c, s.after}, err
}

type stuckConn struct {
	peer.Conn
	after int
}

func (c stuckConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return &stuckStream{Stream: s, after: c.after, closed: make(chan struct{})}, err
}

type stuckStream struct {
	peer.Stream
	n      int
	after  int
	done   atomic.Bool
	closed chan struct{}
}

func (s *stuckStream) Recv() ([]byte, error) {
	if s.n++; s.n > s.after {
		<-s.closed
		return nil, context.Canceled
	}
	return s.Stream.Recv()
}

func (s *stuckStream) Close() error {
	if s.done.CompareAndSwap(false, true) {
		close(s.closed)
	}
	return s.Stream.Close()
}
