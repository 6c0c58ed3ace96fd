package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A Probe samples the server's process.
type Probe func(settled bool) (Sample, error)

// Config says where the server is and how long to measure.
type Config struct {
	Addr     string
	Probe    Probe
	Checksum bool // see peer.Options
	TLS      bool // likewise

	Warmup   time.Duration // runs before what is measured
	Time     time.Duration // measured
	Messages int64         // if set, measure this many instead of Time
}

// A Result is one run's figures.
type Result struct {
	Peer     string       `json:"peer"`
	Workload string       `json:"workload"`
	Seconds  float64      `json:"seconds"`
	Count    int64        `json:"count"`  // of the workload's unit
	Bytes    int64        `json:"bytes"`  // of payload, one way
	Costed   float64      `json:"costed"` // what CPU and the like are divided by: Count, or MiB beside a bulk stream
	Latency  *Latency     `json:"latency,omitempty"`
	Path     *Path        `json:"path,omitempty"`
	Client   Cost         `json:"client"`
	Server   Cost         `json:"server"`
	Delivery peer.Summary `json:"delivery"` // over the whole run, not only its measured part
}

// Rate returns units per second.
func (r *Result) Rate() float64 { return float64(r.Count) / r.Seconds }

// GBps returns the payload in 10^9 bytes per second.
func (r *Result) GBps() float64 { return float64(r.Bytes) / r.Seconds / 1e9 }

func (r *Result) seconds() float64 {
	return r.Client.User + r.Client.System + r.Server.User + r.Server.System
}

// CPU returns the microseconds of CPU that one unit cost both sides.
func (r *Result) CPU() float64 { return r.seconds() * 1e6 / r.Costed }

// ServerCPU returns the microseconds of CPU that one unit cost the server.
func (r *Result) ServerCPU() float64 {
	return (r.Server.User + r.Server.System) * 1e6 / r.Costed
}

// Cores returns how many CPUs both sides kept busy.
func (r *Result) Cores() float64 { return r.seconds() / r.Seconds }

// UserShare returns which part of the CPU time was spent outside the kernel.
func (r *Result) UserShare() float64 {
	user := r.Client.User + r.Server.User
	return user / r.seconds()
}

// Allocs returns the objects that both sides allocated per unit.
func (r *Result) Allocs() float64 {
	return float64(r.Client.Allocs+r.Server.Allocs) / r.Costed
}

// Switches returns the context switches of both sides per unit.
func (r *Result) Switches() float64 {
	return float64(r.Client.Switches+r.Server.Switches) / r.Costed
}

// A lane counts what one worker has done. Lanes don't share cache lines.
type lane struct {
	count atomic.Int64
	bytes atomic.Int64 // where not count times Size
	_     [48]byte
}

// run is one workload running over one peer.
type run struct {
	w    Workload
	peer peer.Peer
	cfg  Config
	opts peer.Options
	ctx  context.Context
	fail context.CancelCauseFunc

	lanes   []lane
	latency recorder
	stop    chan struct{} // closed when the workers should finish
	stopped atomic.Bool   // the same, cheaper to check
	workers sync.WaitGroup

	mu       sync.Mutex
	conns    []peer.Conn
	delivery peer.Summary

	result Result
}

// Run drives p, whose server listens at cfg.Addr, through w. It returns an
// error if a message was lost, doubled, reordered or damaged, if the peer
// fails, or if ctx ends before the run does.
func Run(ctx context.Context, w Workload, p peer.Peer, cfg Config) (Result, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &run{w: w, peer: p, cfg: cfg, opts: w.Options(), ctx: ctx, fail: fail, stop: make(chan struct{})}
	r.opts.Checksum, r.opts.TLS = cfg.Checksum, cfg.TLS
	r.result = Result{Peer: p.Name(), Workload: w.Name}
	err := r.drive()
	err = errors.Join(err, r.end(err != nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil { // r.result may still be written to
		return Result{Peer: p.Name(), Workload: w.Name, Delivery: r.delivery}, err
	}
	r.result.Delivery = r.delivery
	return r.result, err
}

// drive runs the workload. It does not wait for it if it is stuck in the peer when ctx
// ends.
func (r *run) drive() error {
	done := make(chan error, 1)
	go func() { done <- r.w.run(r) }() // ends when its streams do; if they are stuck, with the process
	var err error
	select {
	case err = <-done:
	case <-r.ctx.Done():
	}
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	return err
}

// dial makes the workload's connections.
func (r *run) dial() error {
	for range r.w.Conns {
		if _, err := r.dialOne(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) dialOne() (peer.Conn, error) {
	c, err := r.peer.Dial(r.ctx, r.cfg.Addr, r.opts)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	r.mu.Lock()
	r.conns = append(r.conns, c)
	r.mu.Unlock()
	return c, nil
}

// work runs f in n goroutines, each with its lane. They end when r.stop is
// closed, or with the first error, which ends the run.
func (r *run) work(n int, f func(i int, l *lane) error) {
	if r.lanes == nil {
		r.lanes = make([]lane, n)
	}
	for i := range n {
		r.workers.Go(func() {
			if err := f(i, &r.lanes[i]); err != nil {
				r.fail(fmt.Errorf("%s %d: %w", r.w.Unit, i, err))
			}
		})
	}
}

// grace is how long workers may take to end after a failure.
const grace = 3 * time.Second

// join lets the workers finish and waits for them.
func (r *run) join() error {
	r.finish()
	done := make(chan struct{})
	go func() { // ends with the workers; end closes their connections
		r.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// end stops the workers and closes the connections. After a failure the
// connections go first, because a worker may wait for a message that will
// never come.
func (r *run) end(failed bool) error {
	r.finish()
	if !failed {
		return errors.Join(r.err(), r.close())
	}
	done := make(chan struct{})
	go func() { // ends with the workers; if they are stuck, with the process
		_ = r.close()
		r.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(grace):
	}
	return nil
}

// err returns why the run failed while its workers finished.
func (r *run) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(context.Cause(r.ctx), r.delivery.Err())
}

func (r *run) close() error {
	r.mu.Lock()
	conns := r.conns // which workers may still begin to use
	r.mu.Unlock()
	var err error
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (r *run) finish() {
	if !r.stopped.Swap(true) {
		close(r.stop)
	}
}

// deliver adds what a receiver found to the run's figures.
func (r *run) deliver(s peer.Summary) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delivery.Add(s)
}

// An edge is the state at the start or end of the measured part.
type edge struct {
	at             time.Time
	count, bytes   int64
	each           []int64 // by lane, of a long path
	client, server Sample
}

// edge samples the clock and the counters last at the start and first at the
// end, so that sampling is not measured.
func (r *run) edge(start bool) (e edge, err error) {
	if !start {
		e.at = time.Now()
		r.count(&e)
	}
	if e.server, err = r.cfg.Probe(false); err != nil {
		return e, err
	}
	if e.client, err = Take(false); err != nil {
		return e, err
	}
	if start {
		r.count(&e)
		e.at = time.Now()
	}
	return e, nil
}

func (r *run) count(e *edge) {
	e.count, e.bytes = r.counts()
	if r.w.RTT == 0 {
		return
	}
	for i := range r.lanes {
		e.each = append(e.each, r.lanes[i].count.Load())
	}
}

func (r *run) counts() (count, bytes int64) {
	for i := range r.lanes {
		count += r.lanes[i].count.Load()
		bytes += r.lanes[i].bytes.Load()
	}
	return count, bytes + count*int64(r.w.Size)
}

// measure waits for the warm-up, measures, and lets the workers finish.
func (r *run) measure() error {
	if err := r.sleep(r.cfg.Warmup); err != nil {
		return err
	}
	from, err := r.edge(true)
	if err != nil {
		return err
	}
	r.latency.reset()
	if err := r.wait(from.count); err != nil {
		return err
	}
	to, err := r.edge(false)
	if err != nil {
		return err
	}
	r.result.Latency = r.latency.result()
	if err := r.between(from, to); err != nil {
		return err
	}
	return r.join()
}

func (r *run) between(from, to edge) error {
	r.result.Seconds = to.at.Sub(from.at).Seconds()
	r.result.Count = to.count - from.count
	r.result.Bytes = to.bytes - from.bytes
	r.result.Costed = float64(r.result.Count)
	if p := r.result.Path; p != nil {
		p.share(from.each, to.each, r.w.Size, r.result.Seconds)
	}
	if r.w.Bulk > 0 {
		r.result.Costed = float64(r.result.Bytes) / (1 << 20)
	}
	client, server := cost(from.client, to.client), cost(from.server, to.server)
	client.Each, client.EachRSS = r.result.Client.Each, r.result.Client.EachRSS
	server.Each, server.EachRSS = r.result.Server.Each, r.result.Server.EachRSS
	r.result.Client, r.result.Server = client, server
	if r.result.Count <= 0 || r.result.Costed <= 0 {
		return errors.New("nothing was done in the measured time")
	}
	return nil
}

// wait waits for the measured time, or number of messages, to pass.
func (r *run) wait(base int64) error {
	if r.cfg.Messages == 0 {
		return r.sleep(r.cfg.Time)
	}
	for {
		if n, _ := r.counts(); n-base >= r.cfg.Messages {
			return nil
		}
		if err := r.sleep(time.Millisecond); err != nil {
			return err
		}
	}
}

func (r *run) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// memory measures what opening n streams or connections adds on both sides.
func (r *run) memory(n int, open func() error) error {
	from, err := r.settled()
	if err != nil {
		return err
	}
	if err := open(); err != nil {
		return err
	}
	to, err := r.settled()
	if err != nil {
		return err
	}
	r.result.Client.addMemory(from.client, to.client, n)
	r.result.Server.addMemory(from.server, to.server, n)
	return nil
}

func (r *run) settled() (e edge, err error) {
	if e.client, err = Take(true); err != nil {
		return e, err
	}
	e.server, err = r.cfg.Probe(true)
	return e, err
}

// parallel runs f(0) to f(n-1), some at a time, until one fails.
func (r *run) parallel(n, width int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range width {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err) // the first is enough
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
