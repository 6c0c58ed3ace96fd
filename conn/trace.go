package conn

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A FrameInfo is the header of one frame: never its payload, or what metadata says. Which
// fields have a value depends on Kind.
type FrameInfo struct {
	Time    time.Time // when it was decoded, or encoded
	Sent    bool      // by this side
	Kind    string    // "OPEN", "DATA", "CREDIT" and so on: see frame.Kind
	Stream  uint64    // 0: the connection itself
	Method  string    // of OPEN
	Streams int       // OPEN, ACCEPT: of how many streams
	Length  int       // bytes of payload: DATA, and the request or reply in OPEN and ACCEPT
	First   bool      // DATA: the first piece of its message
	Last    bool      // DATA: the last piece
	Value   uint64    // CREDIT: bytes granted in all; READ: bytes read; ENDED: messages taken; GOAWAY: the last stream
	Code    status.Code
	Lost    uint64 // frames before this one that came too fast for the function
}

// traceBuffer is how many frames wait for the function that is given to Trace.
const traceBuffer = 1024

// traces are the calls of Trace that are under way; nil: there are none.
type traces struct{ of atomic.Pointer[[]*tracer] }

// A tracer is one call of Trace.
type tracer struct {
	frames chan FrameInfo
	lost   atomic.Uint64
}

func (t *tracer) put(i FrameInfo) {
	i.Lost = t.lost.Swap(0)
	select {
	case t.frames <- i:
	default:
		t.lost.Add(i.Lost + 1)
	}
}

// Trace calls f with the header of each frame that is read and written, in the caller's
// goroutine, until ctx ends or done is closed.
func (c *Conn) Trace(ctx context.Context, done <-chan struct{}, f func(FrameInfo)) {
	t := &tracer{frames: make(chan FrameInfo, traceBuffer)}
	c.traces.change(func(ts []*tracer) []*tracer { return append(ts, t) })
	defer c.traces.change(func(ts []*tracer) []*tracer {
		return slices.DeleteFunc(ts, func(x *tracer) bool { return x == t })
	})
	for ctx.Err() == nil {
		select {
		case i := <-t.frames:
			f(i)
		case <-ctx.Done():
		case <-done:
			for ctx.Err() == nil && len(t.frames) > 0 {
				f(<-t.frames)
			}
			return
		}
	}
}

// change replaces the list by what f makes of a copy.
func (t *traces) change(f func([]*tracer) []*tracer) {
	for {
		old := t.of.Load()
		var ts []*tracer
		if old != nil {
			ts = slices.Clone(*old)
		}
		now := &ts
		if ts = f(ts); len(ts) == 0 {
			now = nil
		}
		if t.of.CompareAndSwap(old, now) {
			return
		}
	}
}

// frame has a frame traced.
func (t *traces) frame(f *frame.Frame, sent bool) {
	i := FrameInfo{Sent: sent, Kind: f.Kind.String(), Stream: f.Stream}
	switch f.Kind {
	case frame.Open:
		i.Method, i.Streams, i.Length = f.Method, len(f.Grants), len(f.Payload)
	case frame.Accept:
		i.Streams, i.Length = len(f.Grants), len(f.Payload)
	case frame.Data:
		i.Length, i.First, i.Last = len(f.Payload), f.First, f.Last
	case frame.Credit, frame.Read, frame.Ended, frame.Ping, frame.Pong:
		i.Value = f.Value
	case frame.GoAway:
		i.Value, i.Code = f.Value, f.Code
	case frame.Reject, frame.EOS, frame.Reset, frame.Stop:
		i.Code = f.Code
	}
	t.note(i)
}

func (t *traces) note(i FrameInfo) {
	ts := t.of.Load()
	if ts == nil {
		return
	}
	i.Time = time.Now()
	for _, t := range *ts {
		t.put(i)
	}
}

// writer is the session for what writes frames: one that traces them, if somebody wants that.
func (c *Conn) writer() frame.Session {
	if c.traces.of.Load() == nil {
		return c.sess
	}
	return &tracedSession{c.sess, c}
}

// A tracedSession is a session with the frames that are written traced.
type tracedSession struct {
	frame.Session
	c *Conn
}

// Messages implements frame.Session.
func (s *tracedSession) Messages(o *frame.Out, id uint64, run pool.Queue) {
	for range run.Len() {
		m, _ := run.Pop()
		s.c.traces.note(FrameInfo{Sent: true, Kind: frame.Data.String(), Stream: id, Length: m.Len(), First: true, Last: true})
		run.Push(m)
	}
	s.Session.Messages(o, id, run)
}

// Fragment implements frame.Session.
func (s *tracedSession) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	from, to := frame.Part(s.c.caps.Overhead, off, n)
	s.c.traces.note(FrameInfo{
		Sent: true, Kind: frame.Data.String(), Stream: id,
		Length: to - from, First: off == 0, Last: off+n == pool.Cost(m),
	})
	s.Session.Fragment(o, id, m, off, n)
}

// Control implements frame.Session.
func (s *tracedSession) Control(o *frame.Out, f *frame.Frame) {
	s.c.traces.frame(f, true)
	s.Session.Control(o, f)
}
