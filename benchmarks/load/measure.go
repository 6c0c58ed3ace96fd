package load

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
	"github.com/sluicerpc/sluice/benchmarks/load/pace"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// measurement is the measured window of a run. It belongs to one goroutine.
type measurement struct {
	r      *run
	report *report.Run

	began       time.Time
	first, last readings
	before      counters // at the window's begin
	seen        counters // at the last interval's end
	served      counters // at the server's last reading
	perLane     []uint64

	response, service, lateness *hist.H // of the window
	interval                    [3]*hist.H
}

// counters are the run's totals at one time.
type counters struct {
	at                                time.Time
	sent, got, bytes, bulk, bulkBytes uint64
	released                          uint64
	deferred                          [reasons]uint64
}

func newMeasurement(r *run) *measurement {
	m := &measurement{
		r: r, report: &report.Run{Start: time.Now(), Model: "closed", Workload: string(r.cfg.Workload)},
		response: hist.New(), service: hist.New(), lateness: hist.New(),
	}
	if r.cfg.Open() {
		m.report.Model = "open"
	}
	for i := range m.interval {
		m.interval[i] = hist.New()
	}
	return m
}

func (m *measurement) count() counters {
	c := counters{at: time.Now(), released: m.r.released.Load()}
	for _, l := range m.r.lanes {
		c.sent += l.pubSent.Load()
		c.got += l.pubGot.Load()
		c.bytes += l.pubBytes.Load()
	}
	for _, l := range m.r.bulk {
		c.bulk += l.pubSent.Load()
		c.bulkBytes += l.pubBytes.Load()
	}
	if m.r.cfg.Workload == OneWay { // what the library took is all that is known before the end
		c.got = c.sent
	}
	for i := range c.deferred {
		c.deferred[i] = m.r.deferred[i].Load()
	}
	return c
}

func (m *measurement) laneCounts() []uint64 {
	counts := make([]uint64, len(m.r.lanes))
	for i, l := range m.r.lanes {
		if counts[i] = l.pubGot.Load(); m.r.cfg.Workload == OneWay {
			counts[i] = l.pubSent.Load()
		}
	}
	return counts
}

// drain empties the recorders into hs: response, service, lateness.
func (m *measurement) drain(hs ...*hist.H) {
	for _, s := range m.r.shards {
		s.response.Drain(hs[0])
		s.service.Drain(hs[1])
	}
	m.r.lateness.Drain(hs[2])
}

// begin opens the measured window: what came before is warm-up.
func (m *measurement) begin(ctx context.Context) {
	var err error
	if m.first, err = m.r.readings(ctx, false); err != nil {
		m.r.lost(ctx, err)
	}
	m.last = m.first
	m.drain(hist.New(), hist.New(), hist.New())
	m.perLane = m.laneCounts()
	m.before = m.count()
	m.seen, m.served, m.began = m.before, m.before, m.before.at
	m.report.Start = m.began
	m.r.until.Store(int64(m.began.Add(m.r.cfg.Length()).Sub(m.r.start)))
}

// lost ends the run because the server's figures can't be fetched any more.
func (r *run) lost(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.fail(err)
	}
}

// window samples until the run's time is over.
func (m *measurement) window(ctx context.Context) {
	length := m.r.cfg.Length()
	for n := time.Duration(1); ; n++ {
		until := min(n*m.r.cfg.Interval, length)
		whole := m.r.sleep(ctx, max(time.Until(m.began.Add(until)), 1))
		m.sample(ctx)
		if !whole || until == length {
			return
		}
	}
}

// sample closes an interval.
func (m *measurement) sample(ctx context.Context) {
	c := m.count()
	i := report.Interval{
		T: c.at.Sub(m.began).Seconds(), Seconds: c.at.Sub(m.seen.at).Seconds(),
		Sent: c.sent - m.seen.sent, Received: c.got - m.seen.got, Bulk: c.bulkBytes - m.seen.bulkBytes,
		Deferred: deferredSince(m.seen, c),
	}
	if c.sent > c.got {
		i.InFlight = c.sent - c.got
	}
	for _, h := range m.interval {
		h.Reset()
	}
	m.drain(m.interval[:]...)
	m.takeInterval(&i)
	m.seen = c
	i.Marks = m.marks(i)
	m.r.mu.Lock()
	i.Checks, i.Failed = m.r.checks, m.r.failedCalls()
	m.r.mu.Unlock()
	// An interrupted run reports its last figures too.
	rd, err := m.r.readings(context.WithoutCancel(ctx), false)
	i.Client = report.GaugeOf(m.last.client, rd.client)
	m.last.client = rd.client
	if err == nil {
		i.Server = report.GaugeOf(m.last.server, rd.server)
		m.last.server, m.served = rd.server, c
	} else {
		m.r.lost(ctx, err)
	}
	m.report.Series = append(m.report.Series, i)
	m.r.watch(Progress{Phase: Measuring, Elapsed: c.at.Sub(m.began), Length: m.r.cfg.Length(), Interval: i})
}

// takeInterval moves the interval's latencies into i and into the totals.
func (m *measurement) takeInterval(i *report.Interval) {
	m.response.Merge(m.interval[0])
	m.service.Merge(m.interval[1])
	m.lateness.Merge(m.interval[2])
	i.Response = report.LatencyOf(m.interval[0], false)
	i.Service = report.LatencyOf(m.interval[1], false)
	i.Lateness = report.LatencyOf(m.interval[2], false)
	if !m.r.cfg.Open() {
		i.Response = i.Service
	}
}

// elapsed is how long the window lasted so far, or in all: an interrupt ends it early.
func (m *measurement) elapsed() time.Duration {
	if m.began.IsZero() {
		return 0
	}
	return min(m.seen.at.Sub(m.began), m.r.cfg.Length())
}

func (m *measurement) marks(i report.Interval) (marks []string) {
	for _, f := range m.r.cfg.At {
		if at := f.At.Seconds(); at < i.T && at >= i.T-i.Seconds {
			marks = append(marks, f.String())
		}
	}
	return marks
}

func deferredSince(a, b counters) report.Deferred {
	n := func(r reason) uint64 { return b.deferred[r] - a.deferred[r] }
	return report.Deferred{
		Credit: n(credit), Mailbox: n(mailbox), Socket: n(socket), Blocked: n(blocked), InFlight: n(inFlight), Dropped: n(dropped),
	}
}

// idle holds the open streams for the run's time.
func (m *measurement) idle(ctx context.Context) {
	m.begin(ctx)
	m.window(ctx)
	if ctx.Err() == nil {
		m.r.probe()
	}
	m.r.end()
}

// probe checks that the server still answers, which idle streams do not show. It replaces
// a connection, since the server may allow no further connections or streams.
func (r *run) probe() {
	t := time.AfterFunc(r.cfg.Drain, r.closeConns)
	defer t.Stop()
	k := r.links[0]
	k.drop(k.current())
	_, err := k.reconnect()
	if err == nil {
		err = r.newLane(k, peer.Echo).cycle(0)
	}
	if err != nil {
		r.fail(err)
	}
}

// finish fills in the report, once the lanes have ended.
func (m *measurement) finish() *report.Run {
	out := m.report
	m.lateEnd()
	c := m.seen
	out.Seconds = c.at.Sub(m.began).Seconds()
	if m.began.IsZero() {
		out.Seconds = 0
	}
	out.Messages, out.Bytes = c.got-m.before.got, c.bytes-m.before.bytes
	if m.r.cfg.Workload == Idle {
		out.Messages = uint64(len(m.r.lanes))
	}
	if s := out.Seconds; s > 0 && m.r.cfg.Workload != Idle {
		out.Rate, out.ByteRate = float64(out.Messages)/s, float64(out.Bytes)/s
		out.Scheduled = (m.due(c.at) - m.due(m.began)) / s
	}
	out.Client = report.UsageOf(m.first.client, m.last.client, out.Messages)
	served := out.Messages
	if m.r.cfg.Workload != Idle {
		served = m.served.got - m.before.got
	}
	out.Server = report.UsageOf(m.first.server, m.last.server, served)
	out.CPUPerMillion = 1e6 * (out.Client.CPUPerMsg() + out.Server.CPUPerMsg())
	out.Checks, out.Errors = m.r.checks, m.r.errors.Load()
	out.Failed = m.r.callErrors
	out.Faults = m.r.faultReports(out.Series)
	if len(m.r.bulk) > 0 && out.Seconds > 0 {
		bytes := c.bulkBytes - m.before.bulkBytes
		out.Bulk = &report.Bulk{Messages: c.bulk - m.before.bulk, Bytes: bytes, ByteRate: float64(bytes) / out.Seconds}
	}
	out.Fairness = m.fairness()
	out.Invalid = m.invalid()
	return out
}

// due returns how many messages are due by then, or by the end of the window if that is
// earlier.
func (m *measurement) due(by time.Time) float64 {
	if !m.r.cfg.Open() {
		return 0
	}
	end := m.r.start.Add(time.Duration(m.r.until.Load()))
	if by.After(end) {
		by = end
	}
	return pace.Due(m.r.cfg.stages(), by.Sub(m.r.paced))
}

// fairness compares the messages of the lanes in the window.
func (m *measurement) fairness() report.Fairness {
	if m.r.cfg.Workload == Idle || m.perLane == nil {
		return report.Fairness{}
	}
	counts := m.laneCounts()
	for i := range counts {
		counts[i] -= m.perLane[i]
	}
	return report.FairnessOf(counts)
}

// lateEnd adds what came while draining. In the open model that was due in the window,
// and a server that stalls at the end must show in the figures.
func (m *measurement) lateEnd() {
	tail := []*hist.H{hist.New(), hist.New(), hist.New()}
	m.drain(tail...)
	after := m.count()
	if m.r.cfg.Open() && !m.began.IsZero() {
		m.response.Merge(tail[0])
		m.service.Merge(tail[1])
		m.seen.deferred = after.deferred
	}
	out := m.report
	out.Deferred = deferredSince(m.before, m.seen)
	out.Service, out.Response = report.LatencyOf(m.service, true), report.LatencyOf(m.response, true)
	if !m.r.cfg.Open() {
		out.Response = out.Service
	}
	out.Lateness = report.LatencyOf(m.lateness, true)
}

// minMaxLateness is the least limit of the pacer's p99 lateness: a general-purpose kernel
// on a shared machine does no better.
const minMaxLateness = 250 * time.Microsecond

// minReleased is the share of the messages due in the window that must be released in it.
const minReleased = 0.99

// releaseSlack is how many messages fewer than due may be released, by chance or because
// of where the window's ends lie.
func (m *measurement) releaseSlack(due float64) float64 {
	n := float64(max(m.r.cfg.Arrival.Burst, 1))
	if m.r.cfg.Arrival.Poisson {
		n *= 5 * math.Sqrt(due)
	}
	return 2 + n
}

// maxCPUShare is the share of all CPUs above which the client was the bottleneck.
const maxCPUShare = 0.9

// invalid returns why the figures say more about the client than the server.
func (m *measurement) invalid() (why []string) {
	out, c := m.report, &m.r.cfg
	if c.Workload != Idle && out.Messages == 0 {
		why = append(why, "no message in the measured window")
	}
	if !c.Open() {
		return why // the client sends when it can: there is no schedule to miss
	}
	limit := c.MaxLateness
	if limit == 0 {
		limit = max(time.Duration(out.Response.P99/10), minMaxLateness)
	}
	if late := time.Duration(out.Lateness.P99); late > limit {
		why = append(why, fmt.Sprintf("the client's pacer was late: p99 %s, above %s", report.Duration(int64(late)), report.Duration(int64(limit))))
	}
	if due, released := out.Scheduled*out.Seconds, m.seen.released-m.before.released; float64(released) < minReleased*due-m.releaseSlack(due) {
		why = append(why, fmt.Sprintf("the client's pacer released %d of %.0f due messages", released, due))
	}
	if cpus := float64(min(runtime.GOMAXPROCS(0), runtime.NumCPU())); out.Client.Cores > maxCPUShare*cpus {
		why = append(why, fmt.Sprintf("the client used %.1f of %.0f CPUs", out.Client.Cores, cpus))
	}
	return why
}
