package load

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/relay"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// fault is one injected fault. All but what is fixed is guarded by run.mu.
type fault struct {
	plan   Fault
	at     int64 // when it began, by run.now
	until  int64 // when it ended; math.MaxInt64 until then
	report report.Fault
}

// needsRelay reports whether a fault happens between client and server.
func (c *Config) needsRelay() bool {
	return slices.ContainsFunc(c.At, func(f Fault) bool { return f.Kind != StallReaders })
}

// injectAll injects the faults at their times, until the run stops.
func (r *run) injectAll() {
	begin := time.Now()
	plan := slices.SortedFunc(slices.Values(r.cfg.At), func(a, b Fault) int { return int(a.At - b.At) })
	for _, f := range plan {
		if !r.sleep(r.ctx, max(time.Until(begin.Add(f.At)), 1)) {
			return
		}
		r.inject(f)
	}
}

func (r *run) inject(f Fault) {
	st := &fault{plan: f, at: r.now(), until: math.MaxInt64}
	st.report = report.Fault{At: f.At.Seconds(), What: f.String(), Hit: len(r.lanes) + len(r.bulk), Recovery: -1}
	r.mu.Lock()
	r.faults = append(r.faults, st)
	r.mu.Unlock()
	switch f.Kind {
	case KillConns:
		n := r.relay.Kill(f.Share)
		r.mu.Lock()
		st.report.Hit = n
		r.mu.Unlock()
	case DelayAll:
		r.relay.Delay(f.Delay)
		r.sleep(r.ctx, f.For)
		r.relay.Delay(0)
	case StallReaders:
		r.mu.Lock()
		st.report.Hit = len(r.lanes) // bulk streams receive nothing
		r.mu.Unlock()
		r.shutGate()
		r.sleep(r.ctx, f.For)
		r.openGate()
	}
	r.mu.Lock()
	st.until = r.now()
	r.mu.Unlock()
}

func (r *run) shutGate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate == nil && !r.stop.Load() {
		r.gate = make(chan struct{})
		r.gated.Store(true)
	}
}

func (r *run) openGate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		r.gated.Store(false)
		close(r.gate)
		r.gate = nil
	}
}

// stalled blocks a reader while a stall-readers fault lasts.
func (r *run) stalled() {
	if !r.gated.Load() {
		return
	}
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// causingFault returns the fault that explains why the lane's stream broke: the one that
// it has not recovered from yet; else the latest that kills, since a stream may notice
// late; else the latest of any kind, since a library may give up on a slow peer. A fault
// does not explain the break of a stream that was opened after it, nor of one that the
// run breaks at the end of the drain.
func (l *lane) causingFault() (cause *fault) {
	if l.r.cut.Load() {
		return nil
	}
	if l.broken != nil {
		return l.broken
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	for _, f := range l.r.faults {
		kills := f.plan.Kind == KillConns
		if l.opened <= f.until && (kills || cause == nil || cause.plan.Kind != KillConns) {
			cause = f
		}
	}
	return cause
}

// faultsEnd returns when the last of the faults so far was over.
func (r *run) faultsEnd() (end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		end = max(end, f.until)
	}
	return end
}

// charge counts the end of the lane's stream, and its missing messages, with f.
func (l *lane) charge(f *fault, missing uint64) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if l.broken == nil {
		f.report.Broken++
		l.broken, l.brokeAt = f, l.r.now()
	}
	if l.mode == peer.Discard {
		f.report.Unconfirmed += missing
	} else {
		f.report.Lost += missing
	}
}

// noteRecovery is called when the lane receives or sends: a lane that a fault broke has
// recovered when its new stream has shown that it works.
func (l *lane) noteRecovery() {
	switch {
	case l.broken == nil:
	case l.mode != peer.Discard:
		l.recovered(l.r.now())
	case !l.unproven():
		l.recovered(l.opened)
	}
}

// recovered notes that messages have flowed again since then.
func (l *lane) recovered(since int64) {
	if l.broken == nil {
		return
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	f := &l.broken.report
	f.Recovered++
	f.Recovery = max(f.Recovery, float64(since-l.broken.at)/1e9)
	l.broken = nil
}

// faultReports returns the reports of the faults. The recovery from a fault with a
// duration is taken from the series: until an interval is as good as those before the
// fault.
func (r *run) faultReports(series []report.Interval) (out []report.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		switch {
		case f.report.Recovered < f.report.Broken:
			f.report.Recovery = -1
		case f.plan.Kind != KillConns:
			f.report.Recovery = recovery(series, f.plan.At.Seconds(), (f.plan.At + f.plan.For).Seconds())
		}
		out = append(out, f.report)
	}
	return out
}

func recovery(series []report.Interval, from, to float64) float64 {
	var rate float64
	var p99 int64
	n := 0
	for _, i := range series {
		if i.T <= from {
			rate, p99, n = rate+i.Rate(), max(p99, i.Response.P99), n+1
		}
	}
	for _, i := range series {
		begin := i.T - i.Seconds
		if begin < to || n == 0 {
			continue
		}
		if i.Rate() >= 0.9*rate/float64(n) && (p99 == 0 || i.Response.P99 <= 2*p99) {
			return begin - to
		}
	}
	return -1
}

// longestCeiling is the longest delay whose ceiling is measured: that takes as long.
const longestCeiling = time.Second

// ceilings measures at what rate raw bytes get through the delays that there were.
func (r *run) ceilings(ctx context.Context) error {
	rates := map[time.Duration]float64{}
	for _, f := range r.cfg.At {
		if d := f.Delay; f.Kind == DelayAll && d <= longestCeiling && rates[d] == 0 {
			rate, err := relay.Ceiling(ctx, d)
			if err != nil {
				return fmt.Errorf("measuring what gets through a delay of %v: %w", d, err)
			}
			rates[d] = rate
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		f.report.Ceiling = rates[f.plan.Delay]
	}
	return nil
}
