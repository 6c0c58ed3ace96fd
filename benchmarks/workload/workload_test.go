package workload_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

const limit = 30 * time.Second

// quick returns w with few streams and no long periods.
func quick(w workload.Workload) workload.Workload {
	w = w.Capped(8)
	w.Period = min(w.Period, 2*time.Millisecond)
	return w
}

// drive runs w over p with the server in this process.
func drive(t *testing.T, p peer.Peer, w workload.Workload, messages int64) (workload.Result, error) {
	t.Helper()
	o := w.Options()
	o.Serving = new(atomic.Int64)
	s, err := p.Serve("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return workload.Run(ctx, w, p, workload.Config{
		Addr: s.Addr(), Messages: messages,
		Probe: func(settled bool) (workload.Sample, error) {
			sample, err := workload.Take(settled)
			sample.Serving = o.Serving.Load()
			return sample, err
		},
	})
}

func TestEveryWorkloadOverEveryPeer(t *testing.T) {
	for _, p := range all.Peers() {
		t.Run(p.Name(), func(t *testing.T) {
			for _, w := range workload.All() {
				if testing.Short() && max(w.Bulk, w.Size) >= 1<<20 {
					continue
				}
				w := quick(w)
				n := int64(max(200, 2*w.Streams*w.Outstanding)) // one of Outstanding is timed
				if w.Bulk > 0 {
					n = 20
				}
				res, err := drive(t, p, w, n)
				if err != nil {
					t.Errorf("%s: %v", w.Name, err)
					continue
				}
				sane(t, w, res)
			}
		})
	}
}

func sane(t *testing.T, w workload.Workload, r workload.Result) {
	t.Helper()
	if r.Count < 8 || r.Seconds <= 0 || r.Rate() <= 0 || r.CPU() <= 0 || r.Allocs() < 0 || r.Switches() < 0 {
		t.Errorf("%s: %+v", w.Name, r)
	}
	kind, _, _ := strings.Cut(w.Name, "-")
	if timed := !slices.Contains([]string{"w3", "w4", "w6", "w9", "w10"}, kind); timed {
		if r.Latency == nil || r.Latency.P50 <= 0 || r.Latency.P99 < r.Latency.P50 || r.Latency.Max < r.Latency.P999 {
			t.Errorf("%s: latency %+v", w.Name, r.Latency)
		}
	} else if r.Latency != nil {
		t.Errorf("%s: latency %+v of nothing", w.Name, r.Latency)
	}
}

func find(t *testing.T, name string) workload.Workload {
	t.Helper()
	found, err := workload.Find(name)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %d workloads, %v", name, len(found), err)
	}
	return found[0]
}

func TestFind(t *testing.T) {
	for name, n := range map[string]int{"w1": 1, "w3": 2, "w4-1m": 1, "w8": 2, "w9": 4, "w10": 1} {
		found, err := workload.Find(name)
		if err != nil || len(found) != n {
			t.Errorf("%s: %d workloads, %v; want %d", name, len(found), err, n)
		}
	}
	for _, name := range []string{"", "w", "w11", "w3-"} {
		if _, err := workload.Find(name); err == nil {
			t.Errorf("%q found", name)
		}
	}
}

func TestTimeAndWarmup(t *testing.T) {
	p := raw.New()
	s, err := p.Serve("127.0.0.1:0", peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const measured = 60 * time.Millisecond
	res, err := workload.Run(t.Context(), find(t, "w1"), p, workload.Config{
		Addr: s.Addr(), Time: measured, Warmup: 10 * time.Millisecond, Probe: workload.Take,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Seconds < measured.Seconds() || res.Count == 0 {
		t.Errorf("%d echoes in %v s", res.Count, res.Seconds)
	}
	if total := int64(res.Delivery.Messages); total <= res.Count {
		t.Errorf("%d messages in all, %d of them measured: no warm-up", total, res.Count)
	}
}

// faulty spoils one message of each stream that it opens.
type faulty struct {
	peer.Peer
	spoil func(s peer.Stream, p []byte) error // instead of sending p
}

type faultyConn struct {
	peer.Conn
	f faulty
}

type faultyStream struct {
	peer.Stream
	f faulty
	n int
}

func (f faulty) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := f.Peer.Dial(ctx, addr, o)
	return faultyConn{c, f}, err
}

func (c faultyConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return &faultyStream{Stream: s, f: c.f}, err
}

func (s *faultyStream) Send(p []byte) error {
	if s.n++; s.n == 100 {
		return s.f.spoil(s.Stream, p)
	}
	return s.Stream.Send(p)
}

func TestFaultsAreFound(t *testing.T) {
	for _, tc := range []struct {
		name, workload, want string
		spoil                func(s peer.Stream, p []byte) error
	}{
		{"lost", "w3-64", "1 lost", func(peer.Stream, []byte) error { return nil }},
		{"damaged", "w3-1k", "1 corrupt", func(s peer.Stream, p []byte) error {
			p[40] ^= 1
			return s.Send(p)
		}},
		{"damaged echo", "w2", "corrupt", func(s peer.Stream, p []byte) error {
			p[9] ^= 1
			return s.Send(p)
		}},
		{"doubled", "w3-64", "1 duplicated", func(s peer.Stream, p []byte) error {
			q := append([]byte(nil), p...)
			err := s.Send(p)
			b := s.Buf(len(q))
			copy(b, q)
			return errors.Join(err, s.Send(b))
		}},
		{"another stream's", "w3-64", "1 misrouted", func(s peer.Stream, p []byte) error {
			peer.Stamp(p, 99, 99)
			return s.Send(p)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := drive(t, faulty{raw.New(), tc.spoil}, find(t, tc.workload), 2000)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v; want %q in it", err, tc.want)
			}
		})
	}
}

func TestPeerThatFails(t *testing.T) {
	broken := errors.New("broken on purpose")
	_, err := drive(t, faulty{raw.New(), func(peer.Stream, []byte) error { return broken }}, find(t, "w1"), 1<<40)
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

// TestLimit has an echo that never comes: the run ends with its context.
func TestLimit(t *testing.T) {
	p := faulty{raw.New(), func(peer.Stream, []byte) error { return nil }}
	s, err := p.Serve("127.0.0.1:0", peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
	defer cancel()
	done := time.AfterFunc(100*time.Millisecond, func() { s.Close() }) // frees the stuck worker
	defer done.Stop()
	_, err = workload.Run(ctx, find(t, "w1"), p, workload.Config{Addr: s.Addr(), Time: time.Hour, Probe: workload.Take})
	if !errors.Is(err, late) {
		t.Errorf("error %v, want %v", err, late)
	}
}

func TestLostServer(t *testing.T) {
	p := raw.New()
	s, err := p.Serve("127.0.0.1:0", peer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	gone := time.AfterFunc(30*time.Millisecond, func() { s.Close() })
	defer gone.Stop()
	_, err = workload.Run(t.Context(), find(t, "w2"), p, workload.Config{Addr: s.Addr(), Time: time.Hour, Probe: workload.Take})
	if err == nil {
		t.Error("no error")
	}
}
