package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/hist"
	"github.com/sluicerpc/sluice/benchmarks/load/pace"
	"github.com/sluicerpc/sluice/benchmarks/load/proc"
	"github.com/sluicerpc/sluice/benchmarks/load/relay"
	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A Target is a server to run against.
type Target struct {
	Peer  peer.Peer
	Addr  string
	Admin string // address of its process's figures; empty: it has none
}

// A ConnectError says that the run could not begin.
type ConnectError struct{ Err error }

func (e *ConnectError) Error() string { return "can't connect: " + e.Err.Error() }

func (e *ConnectError) Unwrap() error { return e.Err }

// A SetupError says that the server's options do not allow the run.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

func (e *SetupError) Unwrap() error { return e.Err }

// A GoneError says that the server was lost in mid-run.
type GoneError struct{ Err error }

func (e *GoneError) Error() string { return "lost the server in mid-run: " + e.Err.Error() }

func (e *GoneError) Unwrap() error { return e.Err }

// A Phase is a part of a run.
type Phase string

// The phases, in order.
const (
	Opening   Phase = "opening"
	Warmup    Phase = "warm-up"
	Measuring Phase = "measuring"
	Draining  Phase = "draining"
)

// Progress is what a watcher is called with.
type Progress struct {
	Phase    Phase
	Elapsed  time.Duration // in the measured window
	Length   time.Duration
	Interval report.Interval // the latest
}

// shards is how many recorders the lanes share. One would be contended, and one a lane
// would take too much memory.
const shards = 4

type shard struct{ response, service *hist.Recorder }

// run is one run. The first fields are those that lanes read for every message; they do
// not change while lanes run.
type run struct {
	cfg        Config
	sampling   bool
	sampleMask uint64
	faulty     bool // faults are planned: lanes look out for them
	start      time.Time
	target     Target
	opts       peer.Options
	ctx        context.Context // of opens; cancelled when the run is over
	cancel     context.CancelFunc
	watch      func(Progress)

	stop     atomic.Bool   // lanes: send nothing more
	stopped  chan struct{} // closed with stop
	stopOnce sync.Once
	cut      atomic.Bool // the drain is over: the run itself breaks what still hangs

	shards   [shards]shard
	lateness *hist.Recorder
	deferred [reasons]atomic.Uint64
	released atomic.Uint64 // so far
	paced    time.Time     // when the schedule began
	until    atomic.Int64  // when the window ends, as now tells it; 0: not known yet
	ids      atomic.Uint32
	errors   atomic.Uint64

	links  []*link
	lanes  []*lane // measured
	bulk   []*lane // in the background
	server *proc.Source
	relay  *relay.Relay // nil unless faults need it

	mu         sync.Mutex
	checks     report.Checks
	callErrors map[string]uint64 // calls that the service answered with an error, by code
	failed     error             // the first failure that ended the run
	failC      chan struct{}
	faults     []*fault
	gate       chan struct{} // readers wait here while it is set
	gated      atomic.Bool
}

// Run runs c against t. If it ends early it returns an error: a ConnectError and a
// SetupError come without a report, a GoneError and an end of ctx with one. watch, if not
// nil, is called for every interval.
func Run(ctx context.Context, t Target, c Config, watch func(Progress)) (*report.Run, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if watch == nil {
		watch = func(Progress) {}
	}
	r := newRun(ctx, t, c, watch)
	defer r.close()
	return r.do(ctx)
}

func newRun(ctx context.Context, t Target, c Config, watch func(Progress)) *run {
	// Streams are opened with a context of the run's own: in some libraries it bounds the
	// stream, and an interrupted run lets streams finish.
	opens, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{
		cfg: c, sampling: c.Sample > 0, sampleMask: uint64(max(c.Sample, 1) - 1), faulty: len(c.At) > 0,
		start: time.Now(), target: t, opts: c.PeerOptions(), ctx: opens, cancel: cancel, watch: watch,
		stopped: make(chan struct{}), failC: make(chan struct{}), lateness: hist.NewRecorder(),
	}
	for i := range r.shards {
		r.shards[i] = shard{hist.NewRecorder(), hist.NewRecorder()}
	}
	return r
}

func (r *run) do(ctx context.Context) (*report.Run, error) {
	if err := r.prepare(ctx); err != nil {
		if _, ok := errors.AsType[*SetupError](err); ok {
			return nil, err
		}
		return nil, &ConnectError{err}
	}
	mem, err := r.openAll(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConnectError{err}
	}
	m := newMeasurement(r)
	m.report.Memory = mem
	if r.cfg.Workload == Idle {
		m.idle(ctx)
	} else {
		r.drive(ctx, m)
	}
	r.mu.Lock()
	err = r.failed
	r.mu.Unlock()
	if ctx.Err() == nil && err != nil && r.neverServed(err) {
		if r.cfg.Payload != nil {
			return nil, &ConnectError{fmt.Errorf("%s at %s answered nothing: %w", r.target.Peer.Name(), r.target.Addr, err)}
		}
		return nil, &ConnectError{fmt.Errorf("%s at %s answered nothing: %w; start a server with: load serve --peer=%s",
			r.target.Peer.Name(), r.target.Addr, err, r.target.Peer.Name())}
	}
	var unmeasured error
	if ctx.Err() == nil && err == nil {
		unmeasured = r.ceilings(ctx)
	}
	out := m.finish()
	if ctx.Err() != nil {
		out.Interrupted = true
		return out, ctx.Err()
	}
	if err != nil {
		out.Error = err.Error()
		return out, &GoneError{err}
	}
	return out, unmeasured
}

// neverServed reports whether the server was of another kind, or no server: it answered not
// one message.
func (r *run) neverServed(err error) bool {
	if errors.Is(err, peer.ErrOtherServer) {
		return true
	}
	if r.cfg.Workload != Echo && r.cfg.Workload != Churn && r.cfg.Workload != Call {
		return false // the other workloads have no answers
	}
	return !slices.ContainsFunc(r.lanes, func(l *lane) bool { return l.pubGot.Load() > 0 })
}

// now returns the time since the run's start. Reading the monotonic clock
// alone costs half of what time.Now does.
func (r *run) now() int64 { return int64(time.Since(r.start)) }

func (r *run) service(l *lane, d int64) {
	r.shards[l.link.index%shards].service.Record(time.Duration(d))
}

func (r *run) response(l *lane, d int64) {
	r.shards[l.link.index%shards].response.Record(time.Duration(d))
}

func (r *run) check(c report.Checks) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addChecks(&r.checks, c)
}

func addChecks(to *report.Checks, c report.Checks) {
	to.Messages += c.Messages
	to.Lost += c.Lost
	to.Duplicated += c.Duplicated
	to.Reordered += c.Reordered
	to.Corrupted += c.Corrupted
	to.Unconfirmed += c.Unconfirmed
}

// drop accounts for messages that will never be sent. The time that they have waited so
// far is recorded as their response time, of the same share of them as of those that are
// sent.
func (r *run) drop(l *lane, items []item) {
	now := r.now()
	n := r.deferred[dropped].Add(uint64(len(items)))
	for _, it := range items {
		if n--; l.sampled(n) {
			r.response(l, now-it.due())
		}
	}
}

// deferredBy counts a message that is sent now if it could not be when it was due. Each
// message counts once, here or in drop.
func (r *run) deferredBy(it item) {
	if why := it.why(); why != 0 {
		r.deferred[why].Add(1)
	}
}

// fail ends the run for err.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
		close(r.failC)
	}
}

// end stops the lanes' sending.
func (r *run) end() {
	r.stopOnce.Do(func() {
		r.stop.Store(true)
		close(r.stopped)
		for _, l := range r.lanes {
			if l.q != nil {
				l.q.close()
			}
		}
	})
}

// drive runs lanes and pacer through warm-up, window and drain.
func (r *run) drive(ctx context.Context, m *measurement) {
	begin := time.Now()
	r.paced = begin
	var lanes, others sync.WaitGroup
	for _, l := range append(r.lanes[:len(r.lanes):len(r.lanes)], r.bulk...) {
		lanes.Go(l.run)
	}
	if r.cfg.Open() {
		others.Go(func() { r.pace(begin) })
	}
	done := make(chan struct{})
	go func() { // ends with the lanes; drained waits for it
		lanes.Wait()
		close(done)
	}()
	r.watch(Progress{Phase: Warmup, Length: r.cfg.Length()})
	if r.sleep(ctx, r.cfg.Warmup) {
		m.begin(ctx)
		if r.faulty {
			others.Go(r.injectAll)
		}
		m.window(ctx)
	}
	r.end()
	r.watch(Progress{Phase: Draining, Elapsed: m.elapsed(), Length: r.cfg.Length()})
	r.drained(done)
	others.Wait()
}

// sleep reports whether it lasted to the end.
func (r *run) sleep(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-r.failC:
	case <-r.stopped:
	}
	return false
}

// pace releases due messages to the lanes in turn.
func (r *run) pace(begin time.Time) {
	p := pace.Pacer{Lateness: r.lateness}
	offset := begin.Sub(r.start)
	n := 0
	p.Run(pace.NewSchedule(r.cfg.stages(), r.cfg.Arrival.Arrival), begin, &r.stop, func(due, now time.Duration) {
		l := r.lanes[n]
		if n++; n == len(r.lanes) {
			n = 0
		}
		r.release(l, int64(due+offset), int64(now+offset))
	})
}

// release hands one due message to its lane, with the reason if the lane is blocked.
// Messages due after the window are not part of the run.
func (r *run) release(l *lane, due, now int64) {
	if end := r.until.Load(); end > 0 && due > end {
		return
	}
	r.released.Add(1)
	why := reason(0)
	switch st := l.state.Load(); {
	case st < 0:
		why = reason(-st)
	case st > 0 && now-st > int64(blockedAfter):
		why = blocked
	}
	if it := newItem(due, why); !l.q.push(it) {
		r.drop(l, []item{it})
	}
}

// drained waits for the lanes, and breaks what still hangs at the deadline.
func (r *run) drained(done <-chan struct{}) {
	wait := r.cfg.Drain
	r.mu.Lock()
	if r.failed != nil {
		wait = 100 * time.Millisecond
	}
	r.mu.Unlock()
	r.openGate()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	r.cut.Store(true)
	for _, l := range append(r.lanes[:len(r.lanes):len(r.lanes)], r.bulk...) {
		if s := l.current.Load(); s != nil && !l.ended.Load() {
			peer.Break(*s) // to wake what waits in it
		}
	}
	r.closeConns()
	<-done
}

// closeConns closes the connections, and with them ends every call that waits on one: not
// every library observes a context.
func (r *run) closeConns() {
	r.cancel()
	for _, k := range r.links {
		k.close()
	}
}

// close releases all resources.
func (r *run) close() {
	r.end()
	for _, l := range r.lanes {
		l.closeStream()
	}
	for _, l := range r.bulk {
		l.closeStream()
	}
	r.closeConns()
	if r.relay != nil {
		_ = r.relay.Close() // no traffic is left
	}
	if r.server != nil {
		r.server.Close()
	}
}
