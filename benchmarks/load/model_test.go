package load

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/proc"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/grpcpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
	"github.com/sluicerpc/sluice/benchmarks/peer/sluicepeer"
)

// pausing is a peer whose streams receive nothing for a while, once, as when
// the server stalls.
type pausing struct {
	peer.Peer
	after      int
	retryPause time.Duration
}

func (p pausing) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := p.Peer.Dial(ctx, addr, o)
	return pausingConn{c, p}, err
}

type pausingConn struct {
	peer.Conn
	p pausing
}

func (c pausingConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return &pausingStream{Stream: s, p: c.p}, err
}

type pausingStream struct {
	peer.Stream
	p pausing
	n int
}

func (s *pausingStream) Recv() ([]byte, error) {
	if s.n++; s.n == s.p.after {
		time.Sleep(s.p.retryPause)
	}
	return s.Stream.Recv()
}

// The messages due while the server stalls are late, though they were quick
// once they were sent: response time says so, service time doesn't.
func TestAStallIsChargedToEveryMessageDueInIt(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Rate, c.InFlight, c.Duration, c.Warmup = 1000, 1, 500*time.Millisecond, 0 })
	out := mustRun(t, pausing{raw.New(), 100, 200 * time.Millisecond}, c)
	// 200 of 500 messages were due in the stall, at even distances from its end.
	if p90 := time.Duration(out.Response.P90); p90 < 80*time.Millisecond {
		t.Errorf("response p90 %v, want above 80ms", p90)
	}
	if p90 := time.Duration(out.Service.P90); p90 > 50*time.Millisecond {
		t.Errorf("service p90 %v, want far below the stall", p90)
	}
	// On a machine with other work the end comes before some of them have gone.
	if n := out.Deferred.InFlight + out.Deferred.Dropped; n < 150 || out.Deferred.InFlight == 0 || out.Deferred.Total() != n {
		t.Errorf("deferred %+v, want about 200 by the limit in flight", out.Deferred)
	}
	if out.Checks.Violations() != 0 {
		t.Errorf("%+v", out.Checks)
	}
}

// reluctant is a peer that says why it would have to wait, each reason in turn.
type reluctant struct{ peer.Peer }

func (r reluctant) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := r.Peer.Dial(ctx, addr, o)
	return reluctantConn{c}, err
}

type reluctantConn struct{ peer.Conn }

func (c reluctantConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return &reluctantStream{Stream: s}, err
}

type reluctantStream struct {
	peer.Stream
	n int
}

func (s *reluctantStream) TrySend(p []byte) (string, error) {
	s.n++
	switch s.n % 8 {
	case 1:
		return "credit", nil
	case 3:
		return "mailbox", nil
	case 5:
		return "socket", nil
	}
	return "", s.Stream.Send(p)
}

func TestDeferredSendsAreCountedByReason(t *testing.T) {
	for _, w := range []Workload{Echo, OneWay} {
		c := short(t, "pingpong", func(c *Config) { c.Workload, c.Rate, c.InFlight, c.Warmup = w, 2000, 1000, 0 })
		var wrong []string
		for range 5 { // what is due while a sender waits for a processor has that send's reason
			out := mustRun(t, reluctant{raw.New()}, c)
			if out.Checks.Violations() != 0 {
				t.Errorf("%s: %+v", w, out.Checks)
			}
			wrong = nil
			d := out.Deferred
			eighth := float64(out.Messages) / 8
			for name, n := range map[string]uint64{"credit": d.Credit, "mailbox": d.Mailbox, "socket": d.Socket} {
				if got := float64(n); got < eighth/3 || got > 3*eighth {
					wrong = append(wrong, fmt.Sprintf("%d deferred for %s, want about %.0f", n, name, eighth))
				}
			}
			if len(wrong) == 0 {
				break
			}
		}
		if len(wrong) > 0 {
			t.Errorf("%s: %v", w, wrong)
		}
	}
}

func TestASendThatBlocksDefersWhatIsDue(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Workload, c.Rate, c.Warmup = OneWay, 2000, 0 })
	out := mustRun(t, slowSend{raw.New()}, c)
	if n := out.Deferred.Blocked; n == 0 || n < out.Messages/2 {
		t.Errorf("deferred %+v, want most of it blocked", out.Deferred)
	}
}

// slowSend takes 2 ms for a Send.
type slowSend struct{ peer.Peer }

func (s slowSend) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	c, err := s.Peer.Dial(ctx, addr, o)
	return slowSendConn{c}, err
}

type slowSendConn struct{ peer.Conn }

func (c slowSendConn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	s, err := c.Conn.Open(ctx, m)
	return slowSendStream{s}, err
}

type slowSendStream struct{ peer.Stream }

func (s slowSendStream) Send(p []byte) error {
	time.Sleep(2 * time.Millisecond)
	return s.Stream.Send(p)
}

func TestALatePacerMakesARunInvalid(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Rate, c.MaxLateness = 1000, time.Nanosecond })
	out := mustRun(t, raw.New(), c)
	if len(out.Invalid) == 0 || !strings.Contains(out.Invalid[0], "pacer") || out.Status() != "INVALID" {
		t.Errorf("status %s: %v", out.Status(), out.Invalid)
	}
}

// Of messages that the end cuts off, each counts once, and as many are measured
// as of those that went.
func TestMessagesNeverSentCountOnce(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) {
		c.Rate, c.InFlight, c.Sample, c.Warmup, c.Drain = 2000, 1, 16, 0, 50*time.Millisecond
	})
	out := mustRun(t, stuck{raw.New(), 10}, c)
	d := out.Deferred
	if d.Dropped == 0 || d.Total()-d.Dropped > 11 { // no more than that have gone
		t.Errorf("%+v", d)
	}
	if n := out.Response.Count; n == 0 || n > d.Dropped/16+2 {
		t.Errorf("the response of %d messages was measured, want one in 16 of %d", n, d.Dropped)
	}
}

// No machine releases that many. The rate and the lateness of those that were released
// must not hide it.
func TestAnImpossibleRateIsInvalid(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) {
		c.Rate, c.MaxLateness, c.Duration, c.Warmup = 1e12, time.Hour, 50*time.Millisecond, 0
	})
	out := mustRun(t, raw.New(), c)
	if !strings.Contains(strings.Join(out.Invalid, "; "), "due messages") {
		t.Errorf("%v", out.Invalid)
	}
	if due := out.Scheduled * out.Seconds; due < 4.9e10 || due > 5.1e10 {
		t.Errorf("%v due, want 50 ms of them", due)
	}
}

func TestFaults(t *testing.T) {
	for _, p := range []peer.Peer{raw.New(), grpcpeer.New(), sluicepeer.Peers()[0]} {
		t.Run(p.Name(), func(t *testing.T) { testFaults(t, p) })
	}
}

func testFaults(t *testing.T, p peer.Peer) {
	for _, w := range []Workload{Echo, OneWay} {
		for _, rate := range []Rate{0, 2000} {
			var wrong []string
			for slow := time.Duration(1); slow <= 16; slow *= 4 { // a machine with other work needs longer
				if wrong = tryFaults(t, p, w, rate, slow); len(wrong) == 0 {
					break
				}
			}
			for _, text := range wrong {
				t.Errorf("%s, rate %v: %s", w, rate, text)
			}
		}
	}
}

// tryFaults returns what is wrong with a run in which everything takes slow times as long
// as it has to.
func tryFaults(t *testing.T, p peer.Peer, w Workload, rate Rate, slow time.Duration) (wrong []string) {
	t.Helper()
	shared := p.Name() != "raw" // a connection: a kill hits all streams
	c := short(t, "pingpong", func(c *Config) {
		c.Workload, c.Streams, c.Rate, c.Duration = w, 4, rate, slow*600*time.Millisecond
		c.At = []Fault{
			{At: slow * 100 * time.Millisecond, Kind: KillConns, Share: 0.5},
			{At: slow * 200 * time.Millisecond, Kind: DelayAll, Delay: 10 * time.Millisecond, For: slow * 100 * time.Millisecond},
			{At: slow * 350 * time.Millisecond, Kind: DelayAll, Delay: time.Millisecond, For: slow * 50 * time.Millisecond},
		}
		if w == Echo {
			c.At[2] = Fault{At: slow * 350 * time.Millisecond, Kind: StallReaders, For: slow * 50 * time.Millisecond}
		}
	})
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	out := mustRun(t, p, c)
	if out.Checks.Violations() != 0 {
		t.Fatalf("%s, rate %v: %+v, %+v", w, rate, out.Faults, out.Checks)
	}
	if len(out.Faults) != 3 {
		note("%+v", out.Faults)
		return wrong
	}
	for _, f := range out.Faults {
		if delays := strings.Contains(f.What, string(DelayAll)); delays != (f.Ceiling > 0) {
			note("the ceiling of %s is %.0f bytes a second", f.What, f.Ceiling)
		}
	}
	kill := out.Faults[0]
	hit, broken := 2, 2
	if shared {
		hit, broken = 1, 4
	}
	if kill.Hit != hit || kill.Broken != broken || kill.Recovered != broken || kill.Recovery <= 0 || kill.Recovery > float64(slow) {
		note("%+v", kill)
	}
	if w == Echo && rate == 0 && kill.Lost < uint64(broken) {
		note("%d messages unanswered, want the one of each stream", kill.Lost)
	}
	if w == OneWay && kill.Unconfirmed == 0 {
		note("nothing unconfirmed: %+v", kill)
	}
	if w == Echo && out.Response.Max < int64(15*time.Millisecond) {
		note("the delay is not in the latency: max %v", time.Duration(out.Response.Max))
	}
	return wrong
}

// A server that fails after a fault is lost, and the fault does not explain it.
func TestAFaultDoesNotExplainALaterFailure(t *testing.T) {
	for _, p := range []peer.Peer{raw.New(), grpcpeer.New()} {
		c := short(t, "pingpong", func(c *Config) {
			c.Streams, c.Duration = 2, time.Minute
			c.At = []Fault{{At: 50 * time.Millisecond, Kind: KillConns, Share: 1}}
		})
		srv, err := p.Serve("127.0.0.1:0", c.PeerOptions())
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		out, err := Run(t.Context(), Target{Peer: p, Addr: srv.Addr()}, c, func(p Progress) {
			if p.Phase == Measuring && p.Elapsed >= 300*time.Millisecond {
				srv.Close()
			}
		})
		if _, ok := errors.AsType[*GoneError](err); !ok || out.Status() != "ENDED EARLY" {
			t.Errorf("%s: %v", p.Name(), err)
		}
	}
}

func TestIdleStreamsOfALostServerAreAFailure(t *testing.T) {
	for _, p := range []peer.Peer{raw.New(), grpcpeer.New(), sluicepeer.Peers()[0]} {
		c := short(t, "idle", func(c *Config) { c.Conns, c.Streams = 2, 4 })
		target := few(t, p, 4)
		if _, err := Run(t.Context(), target, c, nil); err != nil {
			t.Errorf("%s: %v", p.Name(), err)
		}
		srv, err := p.Serve("127.0.0.1:0", c.PeerOptions())
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(t.Context(), Target{Peer: p, Addr: srv.Addr()}, c, func(p Progress) {
			if p.Phase == Measuring {
				srv.Close()
			}
		})
		if _, ok := errors.AsType[*GoneError](err); !ok {
			t.Errorf("%s: %v", p.Name(), err)
		}
	}
}

func TestAStallHitsThoseThatReceive(t *testing.T) {
	c := short(t, "hol", func(c *Config) {
		c.BulkSize, c.Streams, c.BulkStreams = sizes("64KiB"), 3, 2
		c.At = []Fault{{At: 50 * time.Millisecond, Kind: StallReaders, For: time.Millisecond}}
	})
	if out := mustRun(t, raw.New(), c); len(out.Faults) != 1 || out.Faults[0].Hit != 3 {
		t.Errorf("%+v, want 3 hit", out.Faults)
	}
}

func TestALostServersFiguresAreReported(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"echo":     nil,
		"duplex":   func(c *Config) { c.Outstanding, c.Size = 64, sizes("16KiB") },
		"open":     func(c *Config) { c.Rate, c.InFlight = 1000, 16 },
		"one way":  func(c *Config) { c.Workload = OneWay },
		"churn":    func(c *Config) { c.Workload, c.Streams = Churn, 4 },
		"one open": func(c *Config) { c.Rate, c.InFlight = 1000, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := short(t, "pingpong", change)
			c.Duration = 10 * time.Second
			srv, err := raw.New().Serve("127.0.0.1:0", c.PeerOptions())
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Close()
			var begin time.Time
			out, err := Run(t.Context(), Target{Peer: raw.New(), Addr: srv.Addr()}, c, func(p Progress) {
				if p.Phase == Measuring && p.Elapsed >= 100*time.Millisecond && begin.IsZero() {
					begin = time.Now()
					srv.Close()
				}
			})
			if _, ok := errors.AsType[*GoneError](err); !ok || out == nil || out.Error == "" {
				t.Fatalf("%v, %v", out, err)
			}
			if out.Messages == 0 || out.Rate == 0 || len(out.Series) == 0 {
				t.Errorf("%d messages, %.0f/s, %d intervals", out.Messages, out.Rate, len(out.Series))
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("noticed after %v", took)
			}
			if out.Checks.Violations() != 0 {
				t.Errorf("the server's end counts as a violation: %+v", out.Checks)
			}
		})
	}
}

// The client's figures last to the end, the server's to its last reading.
func TestTheClientsUsageIsCompleteWithoutTheServer(t *testing.T) {
	c := short(t, "pingpong", func(c *Config) { c.Duration = 10 * time.Second })
	target := serve(t, raw.New(), c)
	admin := new(proc.Admin)
	if err := admin.Serve("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	target.Admin = admin.Addr()
	out, err := Run(t.Context(), target, c, func(p Progress) {
		if p.Phase == Measuring && p.Elapsed >= 100*time.Millisecond {
			admin.Close()
		}
	})
	if _, ok := errors.AsType[*GoneError](err); !ok {
		t.Fatal(err)
	}
	last := out.Series[len(out.Series)-1]
	since := uint64(0) // the server's last reading
	for _, i := range out.Series {
		if i.Server.Goroutines == 0 {
			since += i.Received
		}
	}
	if last.Client.Goroutines == 0 || last.Server.Goroutines != 0 || out.Client.Messages != out.Messages || out.Server.Messages == 0 || out.Server.Messages+since != out.Messages {
		t.Errorf("client %+v, server's messages %d of %d", last.Client, out.Server.Messages, out.Messages)
	}
}

func TestTheKneeIsFound(t *testing.T) {
	probe := func(limit float64) func(context.Context, float64) (*report.Run, report.Probe, error) {
		return func(_ context.Context, rate float64) (*report.Run, report.Probe, error) {
			return &report.Run{Rate: rate}, report.Probe{Rate: rate, Pass: rate <= limit}, nil
		}
	}
	for _, tt := range []struct{ limit, low, high, want float64 }{
		{12345, 1000, 1e6, 12345}, {1e9, 1000, 50000, 50000}, {500, 1000, 1e6, 0}, {1000, 1000, 1e6, 1000},
	} {
		best, probes, err := FindKnee(t.Context(), tt.low, tt.high, probe(tt.limit))
		got := report.KneeOf(probes).Rate
		if err != nil || best == nil || (got > 0) != (tt.want > 0) || got > tt.limit || got < tt.want/closeEnough {
			t.Errorf("limit %v: knee %v, %v", tt.limit, got, err)
		}
		if got > 0 && best.Rate != got {
			t.Errorf("limit %v: the report is of %v, the knee %v", tt.limit, best.Rate, got)
		}
		if len(probes) > 20 {
			t.Errorf("limit %v: %d runs", tt.limit, len(probes))
		}
	}
}

// A client that can't keep up says nothing about the server: such a step is made again, and
// what it bounds is no knee.
func TestTheClientsLimitIsNoKnee(t *testing.T) {
	steps := func(client, server float64, unlucky int) (string, int) {
		n := 0
		best, probes, err := FindKnee(t.Context(), 1000, 1e6, func(_ context.Context, rate float64) (*report.Run, report.Probe, error) {
			p := report.Probe{Rate: rate, Pass: rate <= min(client, server)}
			if n++; rate > client || n == unlucky {
				p.Pass, p.Invalid = false, []string{"the pacer was late"}
			}
			return &report.Run{Rate: rate, Invalid: p.Invalid}, p, nil
		})
		k := report.KneeOf(probes)
		if err != nil || best == nil || k.Rate > 0 && best.Rate != k.Rate {
			t.Errorf("client %v, server %v: %v, %v", client, server, k, err)
		}
		return k.String(), n
	}
	for _, tt := range []struct {
		client, server float64
		unlucky        int // the step that noise makes INVALID
		want           string
	}{
		{50_000, 12_345, 0, "knee: the SLO holds up to 12"},
		{50_000, 12_345, 1, "knee: the SLO holds up to 12"},
		{50_000, 12_345, 3, "knee: the SLO holds up to 12"},
		{12_345, 50_000, 0, "no knee found: the SLO holds at 12"},
		{500, 50_000, 0, "no knee found: at 1k/s already the client is the bottleneck"},
		{50_000, 500, 0, "no knee found: the SLO holds at no rate"},
		{2e6, 2e6, 0, "no knee found: the SLO holds at every rate that was tried, up to 1M/s"},
	} {
		if got, n := steps(tt.client, tt.server, tt.unlucky); !strings.HasPrefix(got, tt.want) || n > 30 {
			t.Errorf("client %v, server %v: %d steps, %s", tt.client, tt.server, n, got)
		}
	}
}

func TestAFaultIsOverWhenEveryStreamHasRecovered(t *testing.T) {
	r := &run{faults: []*fault{
		{plan: Fault{Kind: KillConns}, report: report.Fault{Broken: 2, Recovered: 1, Recovery: 0.5}},
		{plan: Fault{Kind: KillConns}, report: report.Fault{Broken: 2, Recovered: 2, Recovery: 0.5}},
	}}
	if got := r.faultReports(nil); got[0].Recovery != -1 || got[1].Recovery != 0.5 {
		t.Errorf("recovered after %v s and %v s, want never and 0.5", got[0].Recovery, got[1].Recovery)
	}
}

func TestRecovery(t *testing.T) {
	row := func(t, rate float64, p99 int64) report.Interval {
		return report.Interval{T: t, Seconds: 1, Received: uint64(rate), Response: report.Latency{P99: p99}}
	}
	series := []report.Interval{row(1, 100, 5), row(2, 100, 6), row(3, 0, 0), row(4, 200, 90), row(5, 99, 30), row(6, 100, 7)}
	if got := recovery(series, 2, 3); got != 2 {
		t.Errorf("recovered after %v s, want 2", got)
	}
	if got := recovery(series[:5], 2, 3); got != -1 {
		t.Errorf("recovered after %v s, want never", got)
	}
}
