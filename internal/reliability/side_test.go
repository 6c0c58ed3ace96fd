package reliability

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// bound is how long anybody may wait for something that is due at once. It is shorter than what
// a keepalive or a stalled frame takes by default, and long enough for any machine.
const bound = 15 * time.Second

// An account is what one side knows of a stream or call. It travels between the processes.
type account struct {
	Key      uint64
	Begun    int  // how many handlers have begun
	Sent     int  // messages that the library has taken over
	Ended    bool // this side has begun to end its half in order, and all was sent
	Got      int  // messages that were taken
	Clean    bool // the peer's end in order was seen
	Acked    bool // the library says that both sides have ended in order
	Refused  bool // the error says that no handler has seen it
	Answered bool // a call: with the right answer
	Err      string
	Wrong    []string // what was found on this side alone
}

// A side is one side of a stream.
type side struct {
	sc      *scenario
	plan    *stream
	caps    *frame.Caps
	s       *kernel.Stream
	opener  bool
	context context.Context               // of the opener: its end is this side's own
	says    func(what string, key uint64) // nil: nobody listens

	mu sync.Mutex
	account
}

func (d *side) wrong(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.Wrong) < 5 {
		d.Wrong = append(d.Wrong, fmt.Sprintf(format, args...))
	}
}

// halves are the plans of what the side sends and what it receives, and who the senders are.
func (d *side) halves() (out, in half, own, peer int) {
	if d.opener {
		return d.plan.up, d.plan.down, 1, 2
	}
	return d.plan.down, d.plan.up, 2, 1
}

// endsFirst tells whether this side ends the stream, and the other one reads up to its end.
func (d *side) endsFirst() bool { return d.opener != d.plan.serverEnds }

// talk sends and receives at once, and returns when both are over. Nothing but the stream ends
// them: whoever waits must be told.
func (d *side) talk() (sendErr, receiveErr error) {
	var both sync.WaitGroup
	both.Go(func() { sendErr = d.write() })
	both.Go(func() { receiveErr = d.read() })
	late := time.AfterFunc(2*bound, func() {
		d.wrong("hangs: %+v", d.s.Snapshot())
		d.s.Abort(status.Cancelled, "hangs")
	})
	both.Wait()
	late.Stop()
	return sendErr, receiveErr
}

// write sends all messages of its half. The opener that ends first ends its half alone, if it can.
func (d *side) write() error {
	out, _, own, _ := d.halves()
	for i := range out.messages {
		m := d.sc.message(d.Key, own, i)
		if err := d.send(sendWays[out.send], m); err != nil {
			m.Release()
			return err
		}
		d.Sent++
	}
	if !d.opener || !d.endsFirst() || !d.caps.HalfClose {
		return nil
	}
	d.ending()
	return d.s.CloseSend()
}

// ending notes that the side is about to end its half in order.
func (d *side) ending() {
	d.Ended = true
	if d.says != nil {
		d.says(hasEnded, d.Key)
	}
}

// What a side says before it does it, for the case that it is killed.
const (
	hasBegun = "begun" // a handler
	hasEnded = "ended" // its half, in order
)

// send sends m, and has taken it over if there is no error.
func (d *side) send(way string, m pool.Message) error {
	ctx := context.Background()
	switch way {
	case "Send":
		return d.s.Send(ctx, m)
	case "TrySend":
		for {
			if err := d.s.TrySend(m); !errors.Is(err, kernel.ErrWouldBlock) {
				return err
			}
			time.Sleep(100 * time.Microsecond)
		}
	case "Writable":
		slot, ok := <-d.s.Writable()
		if !ok {
			return kernel.ErrSendClosed
		}
		return slot.Send(m)
	case "Out":
		select {
		case d.s.Out() <- m:
			return nil
		case <-d.s.SendDone():
			return kernel.ErrSendClosed
		}
	}
	err := d.s.SendCopy(ctx, m.Bytes())
	if err == nil {
		m.Release()
	}
	return err
}

// read takes the messages of the other half: up to its end, or all that there are where this
// side ends the stream as a whole.
func (d *side) read() error {
	_, in, _, _ := d.halves()
	all := d.endsFirst() && (!d.opener || !d.caps.HalfClose)
	more := func() bool { return !all || d.Got < in.messages }
	err := d.receive(receiveWays[in.receive], more)
	if err == io.EOF {
		d.Clean = true
		return nil
	}
	return err
}

// receive takes messages while there are more to come. io.EOF is an end in order.
func (d *side) receive(way string, more func() bool) error {
	ctx := context.Background()
	for more() {
		switch way {
		case "Receive":
			m, err := d.s.Receive(ctx)
			if err != nil {
				return err
			}
			d.take(m)
		case "ReceiveBatch":
			ps, err := d.s.ReceiveBatch(ctx)
			if err != nil {
				return err
			}
			for _, p := range ps {
				d.takeBytes(p)
			}
		case "In":
			m, ok := <-d.s.In()
			if !ok {
				return d.closed()
			}
			d.take(m)
		case "Batches":
			b, ok := <-d.s.Batches()
			if !ok {
				return d.closed()
			}
			for i := range b.Len() {
				d.takeBytes(b.At(i).Bytes())
			}
			b.Release()
		case "All":
			return d.all(more)
		}
	}
	return nil
}

func (d *side) all(more func() bool) error {
	for m, err := range d.s.All(context.Background()) {
		if err != nil {
			return err
		}
		d.take(m)
		if !more() {
			return nil
		}
	}
	return io.EOF
}

// closed is why a channel of messages was closed.
func (d *side) closed() error {
	if err := d.s.Err(); err != nil {
		return err
	}
	return io.EOF
}

func (d *side) take(m pool.Message) {
	d.takeBytes(m.Bytes())
	m.Release()
}

// takeBytes checks the next message.
func (d *side) takeBytes(p []byte) {
	_, in, _, peer := d.halves()
	i := d.Got
	d.Got++
	if d.sc.isMessage(d.Key, peer, i, p) {
		return
	}
	for j := range in.messages {
		if j != i && d.sc.isMessage(d.Key, peer, j, p) {
			if j < i {
				d.wrong("doubled or reordered: message %d comes when it is %d's turn", j, i)
			} else {
				d.wrong("lost or reordered: message %d comes when it is %d's turn", j, i)
			}
			d.Got = j + 1
			return
		}
	}
	d.wrong("corrupt: message %d, %d bytes", i, len(p))
}

// over checks, when the side has done what it does, that the stream's end is told, always in the
// same way.
func (d *side) over(failed bool) {
	if !failed {
		select {
		case <-d.s.Done():
		case <-time.After(2 * bound):
			d.wrong("never told of the end: %+v", d.s.Snapshot())
		}
	}
	select {
	case <-d.s.Done():
		d.Acked = d.s.Err() == nil
	default:
	}
	if d.Clean {
		d.remainsOver()
		return
	}
	if failed {
		d.s.Abort(status.Cancelled, "it has failed")
	}
	if _, in, _, _ := d.halves(); receiveWays[in.receive] == "ReceiveBatch" { // it takes back what it has lent last
		if ps, err := d.s.ReceiveBatch(context.Background()); err == nil && !failed {
			d.wrong("%d messages behind the end", len(ps))
		}
	}
	// What this side ends itself closes channels at once, and leaves something for Receive. Where a
	// call names the stream its failure does that.
	own := d.context != nil && (d.context.Err() != nil || d.caps.StreamsByID)
	for {
		m, err := d.s.Receive(context.Background())
		if err != nil {
			if errors.Is(err, io.EOF) && failed && d.s.Err() == nil {
				d.wrong("falsely ended: an end in order behind an error")
			}
			break
		}
		if !own {
			d.wrong("a message behind the end, %d bytes", m.Len())
		}
		m.Release()
	}
	d.remainsOver()
}

// remainsOver checks that what was over stays so.
func (d *side) remainsOver() {
	acked := d.Acked
	if m, err := d.s.Receive(context.Background()); err == nil {
		d.wrong("a message behind the end, %d bytes", m.Len())
		m.Release()
	}
	m := pool.New(0)
	if acked && d.s.TrySend(m) == nil {
		d.wrong("lost: a message was taken over behind the end")
		return
	}
	m.Release()
	if err := d.s.Err(); acked && err != nil {
		d.wrong("told twice: in order, and then %v", err)
	}
}

// note notes an error.
func (a *account) note(err error) {
	if err == nil {
		return
	}
	a.Err = err.Error()
	var se *status.StreamError
	a.Refused = errors.As(err, &se) && se.NotProcessed
}
