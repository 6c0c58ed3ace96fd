package load

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/proc"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
	"github.com/sluicerpc/sluice/benchmarks/peer/sluicepeer"
	"go.uber.org/goleak"
)

// Libraries that a peer links start goroutines of their own.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// serve runs a server of p in this process until the test ends.
func serve(t *testing.T, p peer.Peer, c Config) Target {
	t.Helper()
	admin := new(proc.Admin)
	if err := admin.Serve("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	o := c.PeerOptions()
	o.Serving = &admin.Serving
	s, err := p.Serve("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		admin.Close()
	})
	return Target{Peer: p, Addr: s.Addr(), Admin: admin.Addr()}
}

// short returns a preset made short.
func short(t *testing.T, name string, change func(*Config)) Config {
	t.Helper()
	p, err := FindPreset(name)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Config
	c.Duration, c.Warmup, c.Interval = 200*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	c.Drain = 5 * time.Second
	if change != nil {
		change(&c)
	}
	return c
}

func mustRun(t *testing.T, p peer.Peer, c Config) *report.Run {
	t.Helper()
	out, err := Run(t.Context(), serve(t, p, c), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryPresetRuns(t *testing.T) {
	shrink := map[string]func(*Config){
		"idle":  func(c *Config) { c.Conns, c.Streams = 2, 50 },
		"conns": func(c *Config) { c.Conns = 100 },
		"bulk":  func(c *Config) { c.Size = sizes("256KiB") },
		"hol":   func(c *Config) { c.BulkSize = sizes("1MiB") },
	}
	for _, p := range Presets() {
		t.Run(p.Name, func(t *testing.T) {
			c := short(t, p.Name, shrink[p.Name])
			out := mustRun(t, raw.New(), c)
			t.Logf("%.0f/s, %+v", out.Rate, out.Response.P50)
			if out.Messages == 0 || out.Checks.Violations() != 0 || out.Errors != 0 {
				t.Errorf("%d messages, %+v, %d errors", out.Messages, out.Checks, out.Errors)
			}
			if out.Seconds < 0.19 || out.Seconds > 20 { // on a machine with other work
				t.Errorf("measured %v s", out.Seconds)
			}
			if len(out.Series) == 0 {
				t.Errorf("%d intervals", len(out.Series))
			}
			if want := "closed"; c.Open() != (out.Model != want) {
				t.Errorf("model %s", out.Model)
			}
			if c.Sample > 0 && c.Workload != Idle && (out.Response.Count == 0 || out.Response.P50 < 1000) {
				t.Errorf("response %+v", out.Response)
			}
			if c.Sample == 0 && out.Response.Count != 0 {
				t.Errorf("latency measured unasked: %+v", out.Response)
			}
			if c.BulkStreams > 0 && (out.Bulk == nil || out.Bulk.Bytes == 0) {
				t.Errorf("bulk %+v", out.Bulk)
			}
			if c.Workload == Idle && (out.Memory.ServerPerStream <= 0 || out.Memory.Streams != 100) {
				t.Errorf("memory %+v", out.Memory)
			}
		})
	}
}

// A server of sluice's has room for all streams of all connections: also for the last, which is
// refused where those that have many are.
func TestAServerTakesAllStreamsOfAPreset(t *testing.T) {
	c := short(t, "idle", func(c *Config) { c.Conns, c.Streams = 16, 25 })
	if out := mustRun(t, sluicepeer.Peers()[0], c); out.Memory == nil || out.Memory.Streams != 400 {
		t.Errorf("memory %+v", out.Memory)
	}
}

func TestEveryModelOfEchoAndOneWay(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"closed, large: two goroutines": func(c *Config) { c.Outstanding, c.Size = 16, sizes("64KiB") },
		"closed, mixed sizes":           func(c *Config) { c.Outstanding, c.Size = 4, sizes("mix:64=90,4KiB=9,64KiB=1") },
		"open, in flight":               func(c *Config) { c.Streams, c.Rate, c.InFlight = 4, 2000, 16 },
		"open, poisson, one in flight":  func(c *Config) { c.Streams, c.Rate, c.InFlight, c.Arrival.Poisson = 4, 2000, 1, true },
		"open, one way":                 func(c *Config) { c.Workload, c.Rate, c.Size = OneWay, 5000, sizes("uniform:64-4KiB") },
		"open, churn":                   func(c *Config) { c.Workload, c.Streams, c.Rate = Churn, 8, 500 },
		"stages": func(c *Config) {
			if err := c.Stage.UnmarshalText([]byte("100ms@1k,100ms@1k..3k")); err != nil {
				t.Fatal(err)
			}
			c.InFlight = 64
		},
		"one way, sampled": func(c *Config) { c.Workload, c.Sample = OneWay, 16 },
	} {
		t.Run(name, func(t *testing.T) {
			c := short(t, "pingpong", change)
			out := mustRun(t, raw.New(), c)
			t.Logf("%.0f/s of %.0f/s due, p50 %v", out.Rate, out.Scheduled, time.Duration(out.Response.P50))
			if out.Checks.Violations() != 0 || out.Errors != 0 || out.Messages == 0 {
				t.Errorf("%d messages, %+v, %d errors", out.Messages, out.Checks, out.Errors)
			}
			if out.Response.Count == 0 {
				t.Error("no latency")
			}
			if c.Open() && (out.Scheduled == 0 || out.Lateness.Count == 0) {
				t.Errorf("%.0f/s of %.0f/s due, %d latenesses", out.Rate, out.Scheduled, out.Lateness.Count)
			}
		})
	}
}

func TestAnUnreachableServerIsAConnectError(t *testing.T) {
	c := short(t, "pingpong", nil)
	_, err := Run(t.Context(), Target{Peer: raw.New(), Addr: "127.0.0.1:1"}, c, nil)
	if _, ok := errors.AsType[*ConnectError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestAServerOfAnotherLibraryIsRefused(t *testing.T) {
	c := short(t, "pingpong", nil)
	admin := &proc.Admin{Peer: "other"}
	if err := admin.Serve("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	_, err := Run(t.Context(), Target{Peer: raw.New(), Addr: "127.0.0.1:1", Admin: admin.Addr()}, c, nil)
	if err == nil || !strings.Contains(err.Error(), "serves other, not raw") {
		t.Errorf("got %v", err)
	}
}

func TestAMessageThatTheServerWouldNotTakeIsRefused(t *testing.T) {
	admin := &proc.Admin{MaxMessage: 1 << 20}
	if err := admin.Serve("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for name, change := range map[string]func(*Config){
		"pingpong": func(c *Config) { c.Size = sizes("2MiB") },
		"hol":      func(c *Config) { c.BulkSize = sizes("2MiB") },
	} {
		_, err := Run(t.Context(), Target{Peer: raw.New(), Addr: "127.0.0.1:1", Admin: admin.Addr()}, short(t, name, change), nil)
		if _, ok := errors.AsType[*SetupError](err); !ok || !strings.Contains(err.Error(), "--max-message=2097152") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An interrupted run does not show as one that went to its end.
func TestAnInterruptShowsHowFarTheRunWas(t *testing.T) {
	for name, at := range map[string]Phase{"warm-up": Warmup, "window": Measuring} {
		c := short(t, "pingpong", func(c *Config) { c.Duration = time.Hour })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last Progress
		_, err := Run(ctx, serve(t, raw.New(), c), c, func(p Progress) {
			if last = p; p.Phase == at {
				cancel()
			}
		})
		measured := last.Elapsed > 0
		if !errors.Is(err, context.Canceled) || last.Phase != Draining || last.Length != time.Hour ||
			last.Elapsed > time.Minute || measured != (at == Measuring) {
			t.Errorf("%s: %v; the last progress is %v of %v, %s", name, err, last.Elapsed, last.Length, last.Phase)
		}
	}
}

func TestAnInterruptInTheWarmupIsAnInterrupt(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Warmup = time.Hour })
	target := serve(t, raw.New(), c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := Run(ctx, target, c, func(p Progress) {
		if p.Phase == Warmup {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || out == nil || out.Status() != "INTERRUPTED" {
		t.Fatalf("%+v, %v", out, err)
	}
}

func TestAnInterruptedRunReportsWhatThereIs(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Duration = time.Hour })
	target := serve(t, raw.New(), c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := Run(ctx, target, c, func(p Progress) {
		if p.Phase == Measuring && p.Elapsed >= 100*time.Millisecond {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || out == nil || !out.Interrupted || out.Messages == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if out.Checks.Violations() != 0 || out.Seconds > 20 { // on a machine with other work
		t.Errorf("%v s, %+v", out.Seconds, out.Checks)
	}
}
