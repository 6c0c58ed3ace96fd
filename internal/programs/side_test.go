package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A side is one side of a talk, and does what its random numbers say: it writes and reads in
// one of the ways that there are, and may end its half, the stream, or what it waits for at
// any time.
type side struct {
	r       *run
	rnd     *rand.Rand
	s       *kernel.Stream
	t       *talk
	out, in *half
	opener  bool
	cancel  func() // ends the opener's context; nil on the other side
	life    context.Context
	usedIn  bool
	usedBat bool
}

func (r *run) side(life context.Context, key uint64, s *kernel.Stream, opener bool, cancel func()) *side {
	which := uint64(0)
	if opener {
		which = 1
	}
	d := &side{r: r, s: s, t: r.talk(key), opener: opener, cancel: cancel, life: life}
	d.rnd = rand.New(rand.NewPCG(key, 100+which))
	d.out, d.in = d.t.halves(opener)
	return d
}

// talk does all that the side does before it ends.
func (d *side) talk() {
	var wg sync.WaitGroup
	for _, f := range []func(*rand.Rand){d.write, d.read, d.interrupt} {
		rnd := rand.New(rand.NewPCG(d.rnd.Uint64(), 7))
		wg.Go(func() { f(rnd) })
	}
	wg.Wait()
}

// ctx bounds one wait: by the program's patience, by a short time, or not at all, for the
// stream will end.
func (d *side) ctx(rnd *rand.Rand) (context.Context, context.CancelFunc) {
	switch rnd.IntN(4) {
	case 0:
		return context.WithTimeout(d.life, time.Duration(rnd.Int64N(int64(d.r.plan.life))))
	case 1:
		return context.WithCancel(d.life)
	}
	return context.WithCancel(context.Background())
}

// note tells what the side does, or has done.
func (d *side) note(format string, args ...any) {
	who := map[bool]string{true: "opener", false: "acceptor"}[d.opener]
	d.t.note("%s %s", who, fmt.Sprintf(format, args...))
}

func (d *side) pause(rnd *rand.Rand) { d.r.sleep(d.life, d.r.plan.pause(rnd)) }

// write sends messages in one way, and may end the half.
func (d *side) write(rnd *rand.Rand) {
	n := rnd.IntN(d.r.plan.messages + 1)
	if chance(rnd, 5) {
		n = 0
	}
	way := rnd.IntN(7)
	d.note("writes %d by way %d", n, way)
	for range n {
		d.pause(rnd)
		err := d.writeOne(rnd, way)
		if err != nil && !errors.Is(err, kernel.ErrWouldBlock) {
			d.note("can't write: %v", err)
		}
		if err == nil || errors.Is(err, kernel.ErrWouldBlock) {
			continue
		}
		d.r.judge("a send", err)
		if !errors.Is(err, context.DeadlineExceeded) || d.s.Err() != nil {
			break
		}
	}
	d.pause(rnd)
	switch rnd.IntN(6) {
	case 0, 1, 2, 3:
		d.endSend()
	case 4:
		if way == 4 {
			d.orderly(d.out)
			close(d.s.Out())
			d.note("has closed Out")
		}
	}
}

func (d *side) writeOne(rnd *rand.Rand, way int) error {
	switch way {
	case 0, 1:
		ctx, cancel := d.ctx(rnd)
		defer cancel()
		return d.r.send(d.out, func(m pool.Message) error { return d.s.Send(ctx, m) })
	case 2:
		return d.r.send(d.out, d.s.TrySend)
	case 5, 6:
		ctx, cancel := d.ctx(rnd)
		defer cancel()
		if way == 6 && chance(rnd, 3) {
			return d.r.send(d.out, func(m pool.Message) error { return d.s.Send(ctx, m) })
		}
		return d.r.send(d.out, func(m pool.Message) error {
			err := d.s.SendCopy(ctx, m.Bytes())
			if err == nil {
				m.Release()
			}
			return err
		})
	case 3:
		select {
		case slot, ok := <-d.s.Writable():
			switch {
			case !ok:
				return kernel.ErrSendClosed
			case chance(rnd, 5):
				slot.Cancel()
				return nil
			}
			return d.r.send(d.out, slot.Send)
		case <-d.life.Done():
			return context.Cause(d.life)
		}
	}
	return d.r.send(d.out, func(m pool.Message) error {
		select {
		case d.s.Out() <- m:
			return nil
		case <-d.s.SendDone():
			return kernel.ErrSendClosed
		}
	})
}

// orderly notes that h is about to be ended in order. A stream that has been cancelled can't
// be ended in order any more.
func (d *side) orderly(h *half) {
	if d.s.Err() == nil && (d.cancel == nil || d.life.Err() == nil) {
		h.ended.Store(true)
	}
}

func (d *side) endSend() {
	d.orderly(d.out)
	err := d.s.CloseSend()
	d.note("CloseSend: %v", err)
	d.r.judge("CloseSend", err)
	if errors.Is(err, kernel.ErrNotSupported) && d.r.caps.HalfClose {
		d.r.fail("CloseSend: %v", err)
	}
}

// read takes messages in one way, all of them or some.
func (d *side) read(rnd *rand.Rand) {
	n := 1 << 30
	switch rnd.IntN(8) {
	case 0:
		return
	case 1, 2:
		n = rnd.IntN(d.r.plan.messages + 1)
	}
	slow := chance(rnd, 4)
	between := func() bool {
		if slow {
			d.pause(rnd)
		}
		n--
		return n >= 0
	}
	way := rnd.IntN(7)
	d.note("reads %d by way %d", n, way)
	defer func() { d.note("has read %d, %v", d.in.got.Load(), d.in.clean.Load()) }()
	switch way {
	case 0, 1:
		d.receive(rnd, between, func(*rand.Rand) bool { return false })
	case 5:
		d.receive(rnd, between, func(*rand.Rand) bool { return true })
	case 6:
		d.receive(rnd, between, func(rnd *rand.Rand) bool { return chance(rnd, 2) })
	case 2:
		d.all(rnd, between)
	case 3:
		d.usedIn = true
		d.fromIn(between)
	case 4:
		d.usedBat = true
		d.fromBatches(between)
	}
}

// receive takes messages by Receive or, where batch says so, ReceiveBatch.
func (d *side) receive(rnd *rand.Rand, more func() bool, batch func(*rand.Rand) bool) {
	for more() {
		ctx, cancel := d.ctx(rnd)
		var m pool.Message
		var err error
		if batch(rnd) {
			m, err = d.receiveBatch(ctx, rnd)
		} else {
			m, err = d.s.Receive(ctx)
		}
		gaveUp := errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil
		cancel()
		if err == nil {
			d.r.take(d.in, m)
			continue
		}
		if !errors.Is(err, io.EOF) {
			d.r.judge("Receive", err)
		}
		if !gaveUp || d.s.Err() != nil || d.life.Err() != nil {
			d.r.finished(d.in, err)
			return
		}
	}
}

// receiveBatch takes what ReceiveBatch returns, and returns the last of it.
func (d *side) receiveBatch(ctx context.Context, rnd *rand.Rand) (m pool.Message, err error) {
	ps, err := d.s.ReceiveBatch(ctx)
	if err != nil {
		return m, err
	}
	if chance(rnd, 4) { // more may arrive meanwhile
		d.pause(rnd)
	}
	for i, p := range ps {
		if m = pool.Copy(p); i < len(ps)-1 {
			d.r.take(d.in, m)
		}
	}
	return m, nil
}

func (d *side) all(rnd *rand.Rand, more func() bool) {
	ctx, cancel := d.ctx(rnd)
	defer cancel()
	for m, err := range d.s.All(ctx) {
		if err != nil {
			d.r.judge("All", err)
			return
		}
		d.r.take(d.in, m)
		if !more() {
			return
		}
	}
	d.r.finished(d.in, nil)
}

func (d *side) fromIn(more func() bool) {
	for more() {
		select {
		case m, ok := <-d.s.In():
			if !ok {
				d.channelClosed("In")
				return
			}
			d.r.take(d.in, m)
		case <-d.s.Idle():
		}
	}
}

func (d *side) fromBatches(more func() bool) {
	for more() {
		b, ok := <-d.s.Batches()
		if !ok {
			d.channelClosed("Batches")
			return
		}
		for i := range b.Len() {
			d.r.take(d.in, b.Keep(i))
		}
		b.Release()
	}
}

// channelClosed notes how a channel of messages has ended: Err says it.
func (d *side) channelClosed(name string) {
	err := d.s.Err()
	d.note("%s was closed: %v, %+v", name, err, d.s.Snapshot())
	d.r.judge(name, err)
	if err == nil {
		d.r.finished(d.in, nil)
	}
}

// interrupt does something with the stream while it is written and read.
func (d *side) interrupt(rnd *rand.Rand) {
	if chance(rnd, 2) {
		return
	}
	d.r.sleep(d.life, time.Duration(rnd.Int64N(int64(d.r.plan.life))))
	switch rnd.IntN(9) {
	case 0:
		d.endSend()
	case 1:
		d.in.stopped.Store(true)
		d.note("CloseReceive")
		d.s.CloseReceive(one(rnd, status.OK, status.Cancelled))
	case 2:
		d.close(rnd)
	case 3:
		d.abort()
	case 4, 5:
		if d.cancel != nil {
			d.note("cancel")
			d.cancel()
		}
	case 6:
		_ = d.s.Snapshot()
		for range d.s.Conn().EachStream {
		}
		_ = d.s.Conn().Snapshot()
	case 7:
		_, _, err := d.s.Accepted(d.life)
		d.r.judge("Accepted", err)
	case 8:
		n := d.r.plan.maxMessage
		for _, l := range []int{d.r.plan.server.MaxMessage, d.r.plan.client.MaxMessage} {
			n = max(n, l)
		}
		if n = max(n, 4<<20) + 1; chance(rnd, 10) { // more than anybody takes
			m := pool.New(n)
			if d.s.TrySend(m) != nil {
				m.Release()
			}
		}
	}
}

func (d *side) close(rnd *rand.Rand) {
	d.in.stopped.Store(true)
	d.orderly(d.out)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.Int64N(int64(d.r.plan.life))))
	defer cancel()
	d.note("Close")
	err := d.s.Close(ctx)
	d.note("Close: %v", err)
	d.r.judge("Close", err)
}

func (d *side) abort() {
	d.in.stopped.Store(true)
	d.note("Abort")
	d.s.Abort(one(d.rnd, status.OK, status.Cancelled, status.Aborted, status.FirstAppCode+3), "as it likes")
}

// finish ends the stream from the opener's side, or from one that has no handler to return.
func (d *side) finish() {
	switch d.rnd.IntN(5) {
	case 0:
		d.close(d.rnd)
	case 1:
		d.abort()
	case 2: // in the hope that both sides end in order
		d.endSend()
		ctx, cancel := d.life, func() {}
		if !d.in.clean.Load() || d.r.caps.Pacing != frame.Granted { // who does not read may not learn of the end
			ctx, cancel = context.WithTimeout(ctx, d.r.plan.life)
		}
		d.r.sleepUntil(ctx, d.s.Done())
		cancel()
	}
	d.note("is over: %v, %+v", d.s.Err(), d.s.Snapshot())
	if d.cancel != nil {
		d.cancel()
	}
	d.s.Abort(status.Cancelled, "over")
	d.note("has ended")
	d.drain()
}

// drain lets go of what has arrived and was not taken.
func (d *side) drain() {
	if d.usedIn {
		for m := range d.s.In() {
			m.Release()
		}
	}
	if d.usedBat {
		for b := range d.s.Batches() {
			b.Release()
		}
	}
	for {
		m, err := d.s.Receive(context.Background())
		if err != nil {
			return
		}
		m.Release()
	}
}
