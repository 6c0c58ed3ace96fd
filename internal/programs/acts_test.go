package programs

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// act does one of the things that programs do with a client.
func (r *run) act(rnd *rand.Rand, c *kernel.Client) {
	switch rnd.IntN(20) {
	case 0, 1, 2, 3, 4, 5, 6:
		r.stream(rnd, c)
	case 7, 8, 9, 10:
		r.call(rnd, c, calls)
	case 11:
		r.call(rnd, c, nothing)
	case 12, 13:
		r.hedge(rnd, c)
	case 14:
		r.forget(rnd, c)
	case 15:
		r.group(rnd, c)
	case 16:
		r.typed(rnd, c)
	case 17:
		r.burst(rnd, func(rnd *rand.Rand) { r.call(rnd, c, one(rnd, calls, calls, nothing)) })
	case 18:
		r.burst(rnd, func(rnd *rand.Rand) { r.stream(rnd, c) })
	case 19:
		r.look(rnd, c)
	}
}

// keyOf is a new stream's key, whose lowest bits say what its handler does.
func keyOf(rnd *rand.Rand) uint64 { return rnd.Uint64() &^ behaviour }

// within is a context for one stream or call: it ends after the program's patience, and with
// a deadline or by cancel.
func (r *run) within(rnd *rand.Rand) (context.Context, context.CancelFunc) {
	life := r.plan.life
	if chance(rnd, 3) {
		life = time.Duration(rnd.Int64N(int64(life))) + 1
	}
	if chance(rnd, 2) {
		return context.WithTimeout(context.Background(), life)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := time.AfterFunc(life, cancel)
	return ctx, func() { stop.Stop(); cancel() }
}

// stream opens a stream and talks on it.
func (r *run) stream(rnd *rand.Rand, c kernel.Caller) {
	ctx, cancel := r.within(rnd)
	defer cancel()
	key, o := keyOf(rnd), options(rnd)
	s, err := r.open(ctx, c, key, o)
	if err != nil {
		r.judge("Open", err)
		return
	}
	r.talkAs(ctx, key, s, cancel, o)
}

// talkAs does what the opener of s does up to its end.
func (r *run) talkAs(ctx context.Context, key uint64, s *kernel.Stream, cancel func(), o kernel.StreamOptions) {
	d := r.side(ctx, key, s, true, cancel)
	if o.NoReceive {
		d.in.stopped.Store(true)
	}
	d.talk()
	d.finish()
	r.judge("the stream", s.Err())
	r.discarded(s, d.out)
}

// hedge opens a stream three times, and cancels all when the first has given a message.
func (r *run) hedge(rnd *rand.Rand, c *kernel.Client) {
	ctx, cancel := r.within(rnd)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		key := keyOf(rnd) | echoes
		wg.Go(func() {
			s, err := r.open(ctx, c, key, kernel.StreamOptions{})
			if err != nil {
				r.judge("Open", err)
				return
			}
			d := r.side(ctx, key, s, true, cancel)
			_ = r.send(d.out, func(m pool.Message) error { return s.Send(ctx, m) })
			if m, err := s.Receive(ctx); err == nil {
				m.Release()
				cancel()
			}
			s.Abort(status.Cancelled, "another was first")
			d.drain()
		})
	}
	wg.Wait()
}

// forget sends, ends its half and looks at the stream no more, as one that only tells
// something may.
func (r *run) forget(rnd *rand.Rand, c *kernel.Client) {
	ctx := context.Background()
	key := keyOf(rnd) | swallows
	octx, cancel := context.WithTimeout(ctx, r.plan.life)
	defer cancel()
	s, err := r.open(octx, c, key, kernel.StreamOptions{Context: ctx})
	if err != nil {
		r.judge("Open", err)
		return
	}
	t := r.talk(key)
	for range rnd.IntN(5) {
		if err := r.send(&t.up, func(m pool.Message) error { return s.Send(octx, m) }); err != nil {
			r.judge("a send", err)
			s.Abort(status.Cancelled, "no time")
			return
		}
	}
	t.up.ended.Store(true)
	if r.caps.HalfClose {
		r.judge("CloseSend", s.CloseSend())
		return
	}
	ctx, cancel = context.WithTimeout(ctx, bound)
	defer cancel()
	r.judge("Close", s.Close(ctx))
}

// group opens several streams by one request.
func (r *run) group(rnd *rand.Rand, c *kernel.Client) {
	n := min(1+rnd.IntN(4), r.caps.MaxGroup)
	if n < 1 || r.caps.StreamsByID {
		r.stream(rnd, c)
		return
	}
	ctx, cancel := r.within(rnd)
	defer cancel()
	key := keyOf(rnd)
	m := pool.Copy(binary.LittleEndian.AppendUint64(nil, key))
	ss, err := c.OpenN(ctx, r.wire.method(groups), &kernel.OpenOptions{Request: m}, make([]kernel.StreamOptions, n)...)
	if err != nil {
		m.Release()
		r.judge("OpenN", err)
		return
	}
	var wg sync.WaitGroup
	for i, s := range ss {
		wg.Go(func() {
			r.talkAs(ctx, key+uint64(i)*member, s, func() {}, kernel.StreamOptions{})
		})
	}
	wg.Wait()
}

// call makes a call.
func (r *run) call(rnd *rand.Rand, c kernel.Caller, method string) {
	ctx, cancel := r.within(rnd)
	defer cancel()
	key := keyOf(rnd)
	var header, trailer metadata.MD
	o := &kernel.CallOptions{NoWait: chance(rnd, 8), Header: &header, Trailer: &trailer, WaitForReady: chance(rnd, 8)}
	if chance(rnd, 3) {
		o.Timeout = time.Duration(rnd.Int64N(int64(r.plan.life))) + 1
	}
	if r.caps.MaxMetadata > 0 && chance(rnd, 3) {
		o.Metadata = metadata.MD{{Key: "a", Value: "b"}, {Key: "long", Value: string(make([]byte, 0, 10))}}
	}
	req := binary.LittleEndian.AppendUint64(nil, key)
	m := pool.Copy(append(req, make([]byte, r.requestLen(key))...))
	reply, err := c.Call(ctx, r.wire.method(method), m, o)
	if err != nil {
		m.Release()
		r.judge("a call", err)
		if method == nothing && errors.Is(err, &status.StreamError{Code: status.Internal}) {
			r.fail("a call of an unknown method: %v", err)
		}
		return
	}
	defer reply.Release()
	if method == nothing && !o.NoWait {
		r.fail("a method that is not there has answered")
	}
	if !o.NoWait {
		if n, _ := r.form(key, 0); reply.Len() != n {
			r.fail("a call's reply has %d bytes, of %d", reply.Len(), n)
		}
	}
}

// burst does f many times at once.
func (r *run) burst(rnd *rand.Rand, f func(rnd *rand.Rand)) {
	var wg sync.WaitGroup
	for range 1 + rnd.IntN(r.plan.burst) {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), 4))
		wg.Go(func() { f(rnd) })
	}
	wg.Wait()
}

// look looks at the connections while others use them.
func (r *run) look(rnd *rand.Rand, c *kernel.Client) {
	for _, c := range c.Conns() {
		_ = c.Snapshot()
		for s := range c.EachStream {
			_ = s.Snapshot()
		}
	}
	_, _ = c.State()
	_ = c.Stats()
	_ = r.srv.Stats()
	r.sleep(context.Background(), r.plan.pause(rnd))
}

// requestLen is how much longer a request is than its key.
func (r *run) requestLen(key uint64) int {
	if key>>60 > 3 {
		return 0
	}
	n, _ := r.form(key, 1)
	return min(n, r.plan.maxMessage-16)
}
