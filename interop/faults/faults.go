// Package faults has a client and a server of gRPC, of which one is grpc-go's and the other ours,
// talk through a relay that breaks their connection. Whatever byte it breaks at, every stream
// must either deliver all of its messages once, in order and with an end in order, or end with an
// error; nothing may be left of it on our side; and when the path is whole again the same client
// must open a stream that works.
package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A Pair is who talks with whom.
type Pair struct {
	Name  string
	serve func(*sessions) (server, error)
	dial  func(ctx context.Context, addr string) (client, error)
}

// Pairs are all.
func Pairs() []Pair {
	return []Pair{
		{"grpc-go's client, our server", serveSluice, dialGRPC},
		{"our client, grpc-go's server", serveGRPC, dialSluice},
	}
}

// Kinds are all.
func Kinds() []Kind { return []Kind{Cut, Reset, HalfClose} }

// A Run is many sessions with one kind of fault each, at bytes that a seed decides.
type Run struct {
	Kind     Kind
	Seed     uint64
	Faults   int           // half of them in each direction
	Parallel int           // sessions at a time
	Limit    time.Duration // for the streams of a session, and for what is left of it
}

// A Result is what came of a run.
type Result struct {
	Bytes       [2]int64 // of a session without a fault: to the server, and to the client
	Struck      int      // sessions in which the fault came
	Clean       int      // streams that ended in order in those
	Broken      int      // streams that ended with an error in those
	Unconnected int      // sessions in which the client could not connect
	Slowest     time.Duration
}

func (r *Result) String() string {
	return fmt.Sprintf("%d faults in sessions of %d bytes to the server and %d back: %d streams in order, %d with an error, %d sessions without a connection; the slowest session took %v",
		r.Struck, r.Bytes[0], r.Bytes[1], r.Clean, r.Broken, r.Unconnected, r.Slowest.Round(time.Millisecond))
}

// Do runs it. The error is what was wrong.
func (r Run) Do(ctx context.Context, p Pair) (Result, error) {
	ss := &sessions{of: map[uint32]*session{}}
	srv, err := p.serve(ss)
	if err != nil {
		return Result{}, err
	}
	do := &doing{Run: r, pair: p, srv: srv, sessions: ss, plan: newPlan(r.Seed)}
	res, err := do.all(ctx)
	if left := awaitEmpty(srv.left, r.Limit); left != "" {
		err = errors.Join(err, fmt.Errorf("left at the server when all clients are gone: %s", left))
	}
	return res, errors.Join(err, srv.close())
}

// doing is a run under way.
type doing struct {
	Run
	pair     Pair
	srv      server
	sessions *sessions
	plan     plan

	mu     sync.Mutex
	result Result
	wrong  []error
}

// mostErrors is how many are told.
const mostErrors = 20

func (d *doing) all(ctx context.Context) (Result, error) {
	if err := d.measure(ctx); err != nil {
		return Result{}, fmt.Errorf("without a fault: %w", err)
	}
	faults := d.faults()
	next := make(chan int)
	var workers sync.WaitGroup
	for range d.Parallel {
		workers.Go(func() {
			for i := range next {
				if err := d.session(ctx, uint32(i+1), faults[i]); err != nil {
					d.mu.Lock()
					d.wrong = append(d.wrong, fmt.Errorf("%v: %w", faults[i], err))
					d.mu.Unlock()
				}
			}
		})
	}
	for i := range faults {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	if n := len(d.wrong); n > mostErrors {
		d.wrong = append(d.wrong[:mostErrors], fmt.Errorf("and %d more", n-mostErrors))
	}
	return d.result, errors.Join(append(d.wrong, ctx.Err())...)
}

// measure runs a session without a fault, which must be clean, and notes how many bytes it has.
func (d *doing) measure(ctx context.Context) error {
	if err := d.session(ctx, 0, nil); err != nil {
		return err
	}
	if n := len(d.plan) - 1; d.result.Clean != n {
		return fmt.Errorf("%d of %d streams are in order", d.result.Clean, n)
	}
	d.result = Result{Bytes: d.result.Bytes}
	return nil
}

// edge is how many bytes at both ends of a session have half of the faults: that is where
// streams begin and end.
const edge = 3 << 10

func (d *doing) faults() (all []*Fault) {
	rng := rand.New(rand.NewPCG(d.Seed, uint64(d.Kind)+1))
	for i := range d.Faults {
		f := &Fault{Kind: d.Kind, Up: i%2 == 0}
		n := d.result.Bytes[1]
		if f.Up {
			n = d.result.Bytes[0]
		}
		switch i / 2 % 4 {
		case 0:
			f.At = rng.Int64N(min(edge, n))
		case 1:
			f.At = n - 1 - rng.Int64N(min(edge, n))
		default:
			f.At = rng.Int64N(n)
		}
		all = append(all, f)
	}
	return all
}

// session runs one, with a relay and a client of its own. The error is what was wrong.
func (d *doing) session(ctx context.Context, id uint32, f *Fault) error {
	s := newSession(id, d.plan, d.Limit)
	d.sessions.add(s)
	defer d.sessions.remove(s)
	r, err := newRelay(d.srv.addr(), f)
	if err != nil {
		return err
	}
	defer r.close()
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*d.Limit) // each step has its own limit
	defer cancel()
	c, err := d.pair.dial(ctx, r.addr())
	connected := err == nil
	if connected {
		s.run(ctx, c)
	}
	r.repair()
	if !connected {
		if c, err = d.pair.dial(ctx, r.addr()); err != nil {
			return fmt.Errorf("the client does not connect when the path is whole again: %w", err)
		}
	}
	s.again(ctx, c)
	if awaitEmpty(func() string { return words(c.left()) }, d.Limit) != "" {
		s.wrong = append(s.wrong, fmt.Errorf("client: %d streams are left", c.left()))
	}
	s.wrong = append(s.wrong, c.close())
	took := time.Since(start)
	s.wrong = append(s.wrong, s.settle())
	d.note(s, r, connected, took)
	return errors.Join(s.wrong...)
}

func (d *doing) note(s *session, r *relay, connected bool, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.fault == nil {
		d.result.Bytes = [2]int64{r.up.Load(), r.down.Load()}
	}
	if r.fault != nil && !r.struck.Load() {
		return // it was shorter than the first: updates of windows need not be as many
	}
	d.result.Struck++
	d.result.Clean += s.clean
	d.result.Broken += s.broken
	if !connected {
		d.result.Unconnected++
	}
	d.result.Slowest = max(d.result.Slowest, took)
}

func words(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// awaitEmpty waits until left returns nothing, and returns what it has returned last.
func awaitEmpty(left func() string, limit time.Duration) string {
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		s := left()
		if s == "" || time.Now().After(deadline) {
			return s
		}
	}
}
