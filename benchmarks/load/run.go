package load

import (
	"context"
	"errors"
	"fmt"
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

// A SetupError says that the server is not set up for what the run asks of it.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }

func (e *SetupError) Unwrap() error { return e.Err }

// A GoneError says that the server went away in mid-run.
type GoneError struct{ Err error }

func (e *GoneError) Error() string { return "lost the server in mid-run: " + e.Err.Error() }

func (e *GoneError) Unwrap() error { return e.Err }

// A Phase is what a run is at.
type Phase string

// The phases, in order.
const (
	Opening   Phase = "opening"
	Warmup    Phase = "warm-up"
	Measuring Phase = "measuring"
	Draining  Phase = "draining"
)

// Progress tells a watcher how a run is getting on.
type Progress struct {
	Phase    Phase
	Elapsed  time.Duration // in the measured window
	Length   time.Duration
	Interval report.Interval // the latest
}

// shards is how many recorders the lanes share. One would be contended, one a
// lane would be memory.
const shards = 4

type shard struct{ response, service *hist.Recorder }

// run is one run. What lanes touch for every message comes first and does not
// change while they live.
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
	cut      atomic.Bool // the drain is over: what breaks from now on, we broke

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

	mu     sync.Mutex
	checks report.Checks
	failed error // the first failure that ended the run
	failC  chan struct{}
	faults []*fault
	gate   chan struct{} // readers wait here while it is set
	gated  atomic.Bool
}

// Run runs c against t. It returns what there is to report together with why
// it ended before its time, if it did: a ConnectError and a SetupError come without a report,
// a GoneError and an end of ctx with one. watch, if not nil, is told of every
// interval.
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
	// Streams are opened with a context of the run's own: in some libraries it
	// is theirs for life, and a run that is interrupted lets them finish.
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
	out := m.finish()
	if ctx.Err() != nil {
		out.Interrupted = true
		return out, ctx.Err()
	}
	if err != nil {
		out.Error = err.Error()
		return out, &GoneError{err}
	}
	return out, nil
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

// drop accounts for messages that will never be sent: what they have waited so
// far is the least that their response would have taken. It is measured of as
// many as it is of those that are sent.
func (r *run) drop(l *lane, items []item) {
	now := r.now()
	n := r.deferred[dropped].Add(uint64(len(items)))
	for _, it := range items {
		if n--; l.sampled(n) {
			r.response(l, now-it.due())
		}
	}
}

// deferredBy counts a message that goes now if it could not when it was due.
// That it goes is known by then: each counts once, here or in drop.
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

// end tells the lanes to send no more.
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

// prepare sets up what stands between the lanes and the server.
func (r *run) prepare(ctx context.Context) error {
	addr := r.target.Addr
	if r.cfg.needsRelay() {
		var err error
		if r.relay, err = relay.New(addr); err != nil {
			return err
		}
		addr = r.relay.Addr()
	}
	if r.target.Admin != "" {
		r.server = proc.NewSource(r.target.Admin)
		s, err := r.server.Fetch(ctx, false)
		if err != nil {
			return err
		}
		if name := r.target.Peer.Name(); s.Peer != "" && s.Peer != name {
			return fmt.Errorf("the server at %s serves %s, not %s", r.target.Addr, s.Peer, name)
		}
		if n := r.cfg.longest(); s.MaxMessage > 0 && n > s.MaxMessage {
			return &SetupError{fmt.Errorf("--size: messages of up to %d bytes, and the server at %s takes %d: serve --max-message=%d",
				n, r.target.Addr, s.MaxMessage, n)}
		}
	}
	for i := range r.cfg.Conns {
		r.links = append(r.links, &link{r: r, index: i, addr: addr})
	}
	r.makeLanes()
	return nil
}

func (r *run) makeLanes() {
	mode := peer.Echo
	switch r.cfg.Workload {
	case OneWay:
		mode = peer.Discard
	case Idle:
		mode = peer.Park
	}
	for _, k := range r.links {
		for range r.cfg.Streams {
			r.lanes = append(r.lanes, r.newLane(k, mode))
		}
		for range r.cfg.BulkStreams {
			l := r.newLane(k, peer.Discard)
			l.size, l.bulk, l.q = &r.cfg.BulkSize, true, nil
			r.bulk = append(r.bulk, l)
		}
	}
}

func (r *run) newLane(k *link, mode peer.Mode) *lane {
	l := &lane{r: r, link: k, mode: mode, size: &r.cfg.Size}
	if r.cfg.Open() {
		l.q = newQueue()
	}
	if mode == peer.Echo && r.sampling {
		n := 1
		for n < max(r.cfg.Outstanding, r.cfg.InFlight) {
			n *= 2
		}
		l.times = make([]stamp, n)
	}
	return l
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
	r.watch(Progress{Phase: Draining, Elapsed: r.cfg.Length(), Length: r.cfg.Length()})
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

// release hands one due message to its lane, with the reason if that is stuck.
// What is due after the window is no part of the run.
func (r *run) release(l *lane, due, now int64) {
	if end := r.until.Load(); end > 0 && due > end {
		return
	}
	r.released.Add(1)
	why := reason(0)
	switch st := l.state.Load(); {
	case st < 0:
		why = reason(-st)
	case st > 0 && now-st > int64(patience):
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
			peer.Break(*s) // to wake whoever waits in it
		}
	}
	r.hangUp()
	<-done
}

// hangUp ends the connections, and with them every call that waits for one:
// not every library looks at a context.
func (r *run) hangUp() {
	r.cancel()
	for _, k := range r.links {
		k.close()
	}
}

// close frees what is left.
func (r *run) close() {
	r.end()
	for _, l := range r.lanes {
		l.closeStream()
	}
	for _, l := range r.bulk {
		l.closeStream()
	}
	r.hangUp()
	if r.relay != nil {
		_ = r.relay.Close() // its listener is ours alone
	}
	if r.server != nil {
		r.server.Close()
	}
}

func (l *lane) closeStream() {
	if s := l.current.Swap(nil); s != nil && l.r.cfg.Workload != Churn {
		_ = (*s).Close() // the figures are in
	}
}

// settle takes the checks of a stream that ended in order.
func (l *lane) settle() {
	if l.check != nil && l.mode == peer.Echo {
		l.r.check(checksOf(l.check.Summary(), l.sent))
	}
}

// abandon takes the checks of a stream that broke: what is missing counts with
// the fault f, if that broke it.
func (l *lane) abandon(f *fault) {
	var c report.Checks
	missing := l.sent
	switch {
	case l.r.cfg.Workload == Churn: // its check is one message's
		missing -= l.got
	case l.mode == peer.Echo:
		c = checksOf(l.check.Summary(), l.sent)
		missing, c.Lost = c.Lost, 0
	}
	switch {
	case f != nil:
		l.blame(f, missing)
	case l.mode == peer.Echo && l.check != nil && !l.r.excused():
		c.Lost = missing
	default:
		c.Unconfirmed = missing
	}
	l.r.check(c)
}

// excused reports whether streams may end with messages missing: a fault was
// injected, or the server is gone. A server that merely kept messages to
// itself is not an excuse.
func (r *run) excused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed != nil || len(r.faults) > 0 || !r.stop.Load()
}

// recover gets the lane going again after a fault, and reports whether it did.
// Without a fault to blame the run is over, and so it is if streams keep
// breaking: then the server has gone.
func (l *lane) recover(err error) bool {
	r := l.r
	f := l.culprit()
	l.abandon(f)
	if f == nil {
		r.errors.Add(1)
		if !r.stop.Load() {
			r.fail(err)
		}
		return false
	}
	l.leave()
	if l.reopened && l.young() { // the library does not notice by itself
		l.link.drop(l.conn)
		r.sleep(r.ctx, pause)
	}
	for !r.stop.Load() {
		if r.now()-int64(goneAfter) > max(r.faultsEnd(), l.brokeAt) {
			r.errors.Add(1)
			r.fail(err)
			return false
		}
		if err = l.link.reopen(l); err == nil {
			return true
		}
		r.sleep(r.ctx, pause)
	}
	return false
}

// pause is between two tries to get a stream going again.
const pause = 10 * time.Millisecond

// goneAfter is how long a lane tries in vain, once all faults are over.
const goneAfter = 3 * time.Second

// proven is how long a stream that only sends must live to show that it works:
// a library takes messages for a connection that is dead already.
const proven = 100 * time.Millisecond

// leave closes the stream that broke.
func (l *lane) leave() {
	if s := l.current.Swap(nil); s != nil {
		_ = (*s).Close() // it is broken
	}
	if l.cancel != nil {
		l.cancel()
	}
}

// young reports whether the lane's stream has not shown yet that it works.
func (l *lane) young() bool {
	if l.mode == peer.Discard {
		return l.r.now()-l.opened < int64(proven)
	}
	return l.got == 0
}

// openAll opens every stream, and measures what that took in memory.
func (r *run) openAll(ctx context.Context) (*report.Memory, error) {
	before, err := r.readings(ctx, true)
	if err != nil {
		return nil, err
	}
	r.watch(Progress{Phase: Opening, Length: r.cfg.Length()})
	begin := time.Now()
	if err := r.openInTime(ctx, openLimit); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	if r.cfg.Workload == Churn {
		return nil, nil
	}
	if err := r.awaitServer(ctx); err != nil {
		return nil, err
	}
	after, err := r.readings(ctx, true)
	if err != nil {
		return nil, err
	}
	m := &report.Memory{Streams: len(r.lanes) + len(r.bulk), Conns: len(r.links), OpenSeconds: took.Seconds()}
	streams, conns := float64(m.Streams), float64(m.Conns)
	grown := func(a, b uint64) float64 { return float64(b) - float64(a) }
	client := grown(before.client.LiveBytes, after.client.LiveBytes)
	server := grown(before.server.LiveBytes, after.server.LiveBytes)
	m.ClientPerStream, m.ClientPerConn = client/streams, client/conns
	m.ServerPerStream, m.ServerPerConn = server/streams, server/conns
	m.ClientRSS = grown(before.client.RSS, after.client.RSS) / streams
	m.ServerRSS = grown(before.server.RSS, after.server.RSS) / streams
	return m, nil
}

// openLimit is how long opening may take beyond what OpenRate asks for.
const openLimit = 30 * time.Second

// openInTime opens every stream, or none if ctx ends or the limit is up before:
// a library may wait for ever for a stream that the server does not allow.
func (r *run) openInTime(ctx context.Context, limit time.Duration) error {
	lanes := len(r.lanes) + len(r.bulk)
	if r.cfg.OpenRate > 0 {
		limit += time.Duration(float64(lanes) / float64(r.cfg.OpenRate) * 1e9)
	}
	var late atomic.Bool
	t := time.AfterFunc(limit, func() {
		late.Store(true)
		r.hangUp()
	})
	defer t.Stop()
	stop := context.AfterFunc(ctx, r.hangUp)
	defer stop()
	err := r.openLanes(ctx)
	if late.Load() {
		return fmt.Errorf("%s at %s: only %d of %d streams opened in %v: the server may allow no more (serve --max-streams, --max-conns)",
			r.target.Peer.Name(), r.target.Addr, r.ids.Load(), lanes, limit)
	}
	return err
}

// openers is how many streams are being opened at a time.
const openers = 16

// openLanes opens connections and streams, at OpenRate if it is set.
func (r *run) openLanes(ctx context.Context) error {
	for _, k := range r.links {
		if err := k.dial(ctx); err != nil {
			return err
		}
	}
	if r.cfg.Workload == Churn { // its streams come and go
		s, err := r.links[0].open(r.ctx, r.links[0].current(), peer.Echo)
		if err != nil {
			return err
		}
		return s.Close()
	}
	lanes := append(r.lanes[:len(r.lanes):len(r.lanes)], r.bulk...)
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, openers)
	begin := time.Now()
	for i := range openers {
		wg.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(lanes) {
					return
				}
				due := begin
				if r.cfg.OpenRate > 0 {
					due = due.Add(time.Duration(float64(n) / float64(r.cfg.OpenRate) * 1e9))
				}
				if !r.sleep(r.ctx, max(time.Until(due), 0)) {
					return
				}
				errs[i] = lanes[n].open(r.ctx, lanes[n].link.current())
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs...)
}

// awaitServer waits until the server serves all streams: some libraries open
// without waiting for the other side.
func (r *run) awaitServer(ctx context.Context) error {
	if r.server == nil {
		return nil
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		s, err := r.server.Fetch(ctx, false)
		if err != nil {
			return err
		}
		if s.Streams >= int64(len(r.lanes)+len(r.bulk)) {
			return nil
		}
		r.sleep(ctx, 5*time.Millisecond)
	}
	return nil // a server need not count its streams
}

// readings are both processes' at one time.
type readings struct{ client, server proc.Stats }

func (r *run) readings(ctx context.Context, collect bool) (readings, error) {
	var rd readings
	var err error
	if r.server != nil {
		rd.server, err = r.server.Fetch(ctx, collect)
	}
	if collect {
		proc.Collect()
	}
	rd.client = proc.Read() // the client's is there even if the server is gone
	return rd, err
}

// A link is one connection, which faults may break and lanes mend.
type link struct {
	r     *run
	index int
	addr  string

	mu   sync.Mutex
	conn peer.Conn
	done bool

	mending sync.Mutex // held while dialing again: one lane does that for all
}

func (k *link) dial(ctx context.Context) error {
	c, err := k.r.target.Peer.Dial(ctx, k.addr, k.r.opts)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", k.r.target.Peer.Name(), k.r.target.Addr, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		_ = c.Close() // nobody wants it any more
		return errors.New("the run is over")
	}
	k.conn = c
	return nil
}

func (k *link) open(ctx context.Context, c peer.Conn, m peer.Mode) (peer.Stream, error) {
	if c == nil {
		return nil, errors.New("no connection")
	}
	s, err := c.Open(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("open on %s at %s: %w", k.r.target.Peer.Name(), k.r.target.Addr, err)
	}
	return s, nil
}

// reopen opens l's next stream, on a new connection if there is none.
func (k *link) reopen(l *lane) error {
	c, err := k.mend()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(k.r.ctx) // the stream's: it outlives the opening
	t := time.AfterFunc(time.Second, func() {
		cancel()
		k.drop(c)
	})
	if err = l.open(ctx, c); !t.Stop() && err == nil {
		err = errors.New("the stream did not open in time")
	}
	if err != nil {
		cancel()
		k.drop(c)
		return err
	}
	l.cancel, l.reopened = cancel, true
	return nil
}

// mend returns the connection, a new one if there is none.
func (k *link) mend() (peer.Conn, error) {
	k.mending.Lock()
	defer k.mending.Unlock()
	if c := k.current(); c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(k.r.ctx, time.Second)
	defer cancel()
	if err := k.dial(ctx); err != nil {
		return nil, err
	}
	return k.current(), nil
}

func (k *link) current() peer.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn
}

// drop gives up the connection c if it is still the link's.
func (k *link) drop(c peer.Conn) {
	k.mu.Lock()
	mine := c != nil && k.conn == c
	if mine {
		k.conn = nil
	}
	k.mu.Unlock()
	if mine {
		_ = c.Close() // it is broken
	}
}

func (k *link) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done = true; k.conn != nil {
		_ = k.conn.Close() // the figures are in
		k.conn = nil
	}
}
