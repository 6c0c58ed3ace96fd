package kernel

import (
	"context"
	"fmt"
	"sync"
)

// A visit is a call that passes streams, on the handler's side.
type visit struct {
	in incoming
	e  *Encoding

	mu       sync.Mutex
	halves   []*half // those that the request names
	answered bool
	err      error // why the call failed
	running  int   // functions given to Go
	waiting  []work
	idle     chan struct{} // closed when none of them runs any more
}

// A half is one stream of a visit.
type half struct {
	visit    *visit
	stream   *Stream
	id       uint64
	made     *seat // its sink
	returned bool  // and that is a part of the result
	running  int   // functions that serve it, or will
}

// A work is a function that serves a stream.
type work struct {
	h *half
	f func(context.Context) error
}

// An incoming is how a call that passes streams comes in: by which wire.
type incoming interface {
	// request waits for the arguments.
	request(ctx context.Context) (Message, error)
	// stream takes the stream that stands in the arguments as id.
	stream(ctx context.Context, id uint64) (*Stream, error)
	// unnamed is how many streams came with the call that no argument has taken.
	unnamed() int
	// answer accepts the streams and sends the result.
	answer(ctx context.Context, reply Message) error
	// refuse says that the call has failed, if nobody else will.
	refuse(code Code, reason string)
	// outlived tells whether the functions that serve the call's streams go on without
	// its handler; else that counts as running until they have returned.
	outlived() bool
}

// bind gives a source of the request the stream that it stands for.
func (v *visit) bind(ctx context.Context, x argument) error {
	s, err := v.in.stream(ctx, x.refID())
	if err != nil {
		return err
	}
	h := &half{visit: v, stream: s, id: x.refID()}
	v.halves = append(v.halves, h)
	x.(sourceArgument).bind(s, v.e, h)
	return nil
}

// make makes k the stream's sink.
func (h *half) make(k *seat) error {
	v := h.visit
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case h.made != nil:
		return ErrSinkUsed
	case v.err != nil:
		return v.err
	}
	h.made = k
	k.id, k.of, k.origin = h.id, h, h.stream
	if v.answered {
		k.stream.Store(h.stream)
	} else {
		k.coming = make(chan struct{})
	}
	return nil
}

// give notes that a sink is a part of the result.
func (v *visit) give(x argument) error {
	k := x.(sinkArgument).place()
	k.mu.Lock()
	h, err := k.of, k.err
	k.mu.Unlock()
	switch {
	case err != nil:
		return err
	case h == nil || h.visit != v:
		return ErrSinkForeign
	case h.returned:
		return ErrSinkUsed
	}
	h.returned = true
	return nil
}

// begin lets what was made for the call work: it is answered.
func (v *visit) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answered = true
	for _, h := range v.halves {
		switch {
		case h.returned:
			h.made.take(h.stream)
		case h.made != nil:
			h.made.fail(ErrSendClosed)
			fallthrough
		default:
			_ = h.stream.CloseSend() // nobody over there would read
		}
	}
}

// abandon ends the streams of a call that has failed; without an error its handler
// has panicked. Nobody will read what has arrived.
func (v *visit) abandon(err error) {
	code, reason := CodeInternal, "the handler panicked"
	if err != nil {
		code, reason = StatusOf(err)
		v.in.refuse(code, reason)
	} else {
		err = ErrClosed
	}
	v.mu.Lock()
	v.err = err
	halves := v.halves
	v.mu.Unlock()
	for _, h := range halves {
		h.stream.Abort(code, reason)
		h.stream.discard()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range halves {
		if h.made != nil {
			h.made.fail(err)
		}
	}
}

// later runs f when the call is answered: at once if it is.
func (v *visit) later(h *half, f func(context.Context) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.err != nil:
		return
	case !v.answered:
		v.waiting = append(v.waiting, work{h, f})
	default:
		v.count()
		go v.run(work{h, f})
	}
	h.running++
}

// count counts a function in. The lock is held.
func (v *visit) count() {
	if v.running++; v.running == 1 {
		v.idle = make(chan struct{})
	}
}

// uncount counts it out.
func (v *visit) uncount() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running--; v.running == 0 {
		close(v.idle)
	}
}

// serve runs what was left for later, until all of it has returned or, where that
// outlives the handler, beside it.
func (v *visit) serve() {
	v.mu.Lock()
	ws := v.waiting
	v.waiting = nil
	for range ws {
		v.count()
	}
	v.mu.Unlock()
	apart := v.in.outlived()
	for i, w := range ws {
		if apart || i < len(ws)-1 {
			go v.run(w)
		} else {
			v.run(w)
		}
	}
	v.mu.Lock()
	idle, running := v.idle, v.running
	v.mu.Unlock()
	if running > 0 && !apart {
		<-idle
	}
}

// run runs one function, and ends its stream when it is the last or fails.
func (v *visit) run(w work) {
	defer v.uncount()
	w.h.stream.Serve(func(ctx context.Context) {
		err := w.f(ctx)
		v.mu.Lock()
		w.h.running--
		last, made := w.h.running == 0, w.h.made
		v.mu.Unlock()
		switch {
		case err != nil:
			w.h.stream.finish(err)
		case last:
			if made != nil {
				made.flushed(ctx)
			}
			w.h.stream.finish(nil)
		}
	})
}

// A group is a call whose request opens its streams: they stand in it by their
// places, and the result travels with their acceptance.
type group struct {
	o     *Offer
	taken int
	names []bool
}

func (g *group) request(context.Context) (Message, error) {
	g.names = make([]bool, g.o.Streams())
	m := g.o.Request()
	defer m.Forget() // the stream shows it to whoever asks
	return m.Share(), nil
}

func (g *group) stream(_ context.Context, id uint64) (*Stream, error) {
	if id >= uint64(len(g.names)) || g.names[id] {
		return nil, fmt.Errorf("the request opens %d streams, and names number %d", len(g.names), id)
	}
	g.names[id] = true
	g.taken++
	return g.o.streams[id], nil
}

func (g *group) unnamed() int {
	if g.taken == 0 && len(g.names) == 1 {
		return 0 // a call that passes none: something must carry it
	}
	return len(g.names) - g.taken
}

func (g *group) answer(_ context.Context, reply Message) error {
	ss, err := g.o.AcceptAll(reply, nil)
	if err != nil {
		return err
	}
	if g.taken == 0 {
		ss[0].finish(nil)
	}
	return nil
}

func (g *group) refuse(code Code, reason string) { g.o.Reject(code, reason) }

func (g *group) outlived() bool { return false }

// A reference is a call that names streams which are there already, each on a
// connection of its own.
type reference struct {
	o *Offer
	s *Stream // the call
}

func (r *reference) request(ctx context.Context) (Message, error) {
	var err error
	if r.s, err = r.o.Accept(Message{}, nil); err != nil {
		return Message{}, err
	}
	return r.s.Receive(ctx)
}

func (r *reference) stream(ctx context.Context, id uint64) (*Stream, error) {
	return r.o.conn.TakeStream(ctx, id)
}

func (r *reference) unnamed() int { return 0 }

func (r *reference) answer(ctx context.Context, reply Message) error {
	err := r.s.Send(ctx, reply)
	if err == nil {
		r.s.finish(nil)
	}
	return err
}

func (r *reference) refuse(Code, string) {} // the handler's error does it

func (r *reference) outlived() bool { return true }
