package programs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The lowest bits of a key say what the handler of its stream does: what random numbers say,
// or one of these.
const (
	behaviour = 0xff
	echoes    = 1
	swallows  = 2
	member    = 0x100 // what the keys of a group's streams differ by
)

// handle registers what serves streams and calls.
func (r *run) handle(hs *kernel.Handlers) {
	hs.Handle(r.wire.method(talks), r.serveTalk)
	hs.Handle(r.wire.method(calls), r.serveCall)
	hs.HandleOffer(r.wire.method(groups), r.serveGroup)
	r.handleTyped(hs)
}

var errPlain = errors.New("a handler's error")

// serveTalk serves a stream: the handler's own one, or where a call names one, that.
func (r *run) serveTalk(ctx context.Context, s *kernel.Stream) error {
	r.busy.Add(1)
	defer r.busy.Add(-1)
	child, key, err := r.opened(ctx, s)
	if err != nil {
		return err
	}
	if child != s {
		return r.serveNamed(ctx, s, child, key)
	}
	switch key & behaviour {
	case echoes:
		return testEcho(ctx, s)
	case swallows:
		return r.swallow(ctx, s, key)
	}
	rnd := rand.New(rand.NewPCG(key, 5))
	switch rnd.IntN(12) {
	case 0:
		return errPlain // it has not used the stream
	case 1:
		r.talk(key).down.ended.Store(true)
		return nil
	case 2:
		panic("as it likes")
	case 3:
		r.sleep(context.Background(), r.plan.pause(rnd)) // whatever becomes of the stream
	case 4:
		r.callBack(ctx, rnd, s)
	}
	d := r.side(ctx, key, s, false, nil)
	d.talk()
	return r.leave(d, rnd)
}

// leave ends a handler in one of the ways that there are.
func (r *run) leave(d *side, rnd *rand.Rand) error {
	d.in.stopped.Store(true)
	d.note("has ended: returns")
	switch rnd.IntN(10) {
	case 0:
		return errPlain
	case 1:
		return &status.HandlerError{Code: status.FirstAppCode + 1, Reason: "a code of its own"}
	case 2:
		panic("as it likes")
	case 3:
		runtime.Goexit()
	}
	d.orderly(d.out)
	return nil
}

// serveNamed serves a stream that a call names, beside the call or within it.
func (r *run) serveNamed(ctx context.Context, call, child *kernel.Stream, key uint64) error {
	rnd := rand.New(rand.NewPCG(key, 5))
	serve := func() {
		switch key & behaviour {
		case echoes:
			_ = testEcho(child.Context(), child)
			child.Abort(status.Cancelled, "over")
			return
		case swallows:
			if r.swallow(child.Context(), child, key) == nil {
				_ = child.CloseSend()
				return
			}
			child.Abort(status.Cancelled, "over")
			return
		}
		d := r.side(child.Context(), key, child, false, nil)
		d.talk()
		d.finish()
	}
	if chance(rnd, 2) {
		r.spawn(serve)
	} else {
		defer serve()
	}
	if key&behaviour == 0 && chance(rnd, 6) {
		return errPlain
	}
	return sendEmpty(ctx, call)
}

func sendEmpty(ctx context.Context, s *kernel.Stream) error {
	m := pool.New(0)
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}

// callBack has the server open a stream to the client, where it can.
func (r *run) callBack(ctx context.Context, rnd *rand.Rand, s *kernel.Stream) {
	if !r.caps.ServerOpens {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.plan.life)
	defer cancel()
	key := keyOf(rnd)
	b, err := r.open(ctx, s.Conn(), key, kernel.StreamOptions{})
	if err != nil {
		r.judge("a server's Open", err)
		return
	}
	r.talkAs(ctx, key, b, cancel, kernel.StreamOptions{})
}

func testEcho(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			return err
		}
	}
	return nil
}

// swallow takes all, up to the end.
func (r *run) swallow(ctx context.Context, s *kernel.Stream, key uint64) error {
	h := &r.talk(key).up
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		r.take(h, m)
	}
	r.finished(h, nil)
	return nil
}

// serveCall answers a call, or does something else.
func (r *run) serveCall(ctx context.Context, s *kernel.Stream) error {
	r.busy.Add(1)
	defer r.busy.Add(-1)
	m, err := s.Request(ctx)
	if err != nil {
		return err
	}
	key := binary.LittleEndian.Uint64(m.Bytes())
	if n := 8 + r.requestLen(key); m.Len() != n {
		r.fail("a request has %d bytes, of %d", m.Len(), n)
	}
	m.Release()
	rnd := rand.New(rand.NewPCG(key, 6))
	switch rnd.IntN(12) {
	case 0:
		return errPlain
	case 1:
		return fmt.Errorf("wrapped: %w", &status.HandlerError{Code: status.NotFound, Reason: "none"})
	case 2:
		panic("as it likes")
	case 3:
		r.sleep(ctx, 2*r.plan.life) // not every wire tells a server that a call was given up
		return cmp.Or(ctx.Err(), errPlain)
	case 4, 5:
		time.Sleep(r.plan.pause(rnd))
	}
	reply := r.message(&half{key: key}, 0)
	if err := s.Send(ctx, reply); err != nil {
		reply.Release()
		return err
	}
	return nil
}

// serveGroup answers the offer of several streams.
func (r *run) serveGroup(ctx context.Context, o *kernel.Offer) error {
	r.busy.Add(1)
	defer r.busy.Add(-1)
	m, err := o.Request(ctx)
	if err != nil {
		return err
	}
	key := binary.LittleEndian.Uint64(m.Bytes())
	m.Release()
	rnd := rand.New(rand.NewPCG(key, 8))
	switch rnd.IntN(6) {
	case 0:
		o.Reject(errPlain)
		return nil
	case 1:
		return nil
	case 2:
		s, err := o.Accept(pool.Message{}, nil)
		if err == nil {
			r.member(ctx, key, s)
		}
		return nil
	}
	ss, err := o.AcceptAll(pool.Message{}, nil)
	if err != nil {
		return nil
	}
	var wg sync.WaitGroup
	for i, s := range ss {
		wg.Go(func() { r.member(ctx, key+uint64(i)*member, s) })
	}
	wg.Wait()
	return nil
}

// member talks on one of a group's streams.
func (r *run) member(_ context.Context, key uint64, s *kernel.Stream) {
	d := r.side(s.Context(), key, s, false, nil)
	d.talk()
	d.finish()
}
