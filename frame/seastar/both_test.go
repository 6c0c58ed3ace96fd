package seastar

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

// A runner has a session read and written at once, as a connection does.
type runner struct {
	t  *testing.T
	s  frame.Session
	nc net.Conn
	mu sync.Mutex // the writer's
	on func(f *frame.Frame)
}

func (r *runner) write(fs ...func(o *frame.Out)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var o frame.Out
	for _, f := range fs {
		f(&o)
	}
	r.s.Flush(&o)
	for _, p := range o.Vec(nil) {
		if _, err := r.nc.Write(p); err != nil {
			r.t.Error(err)
		}
	}
	o.Reset()
	locals(r.s)
}

func (r *runner) control(f frame.Frame) func(o *frame.Out) {
	return func(o *frame.Out) { r.s.Control(o, &f) }
}

func (r *runner) read() {
	p := make([]byte, 1000)
	l := &listener{s: r.s}
	for {
		n, err := r.nc.Read(p)
		if err == nil {
			err = l.feed(p[:n])
		}
		for wait := r.s.Full(); err == nil && wait != nil; wait = r.s.Full() {
			<-wait
			err = l.feed(nil)
		}
		for i := range l.frames {
			r.on(&l.frames[i])
		}
		l.frames, l.lines = nil, nil
		if err != nil {
			if err != io.EOF && err != io.ErrClosedPipe { //nolint:errorlint // the pipe's own
				r.t.Error(err)
			}
			return
		}
	}
}

// Reading and writing go on at once, on both sides, while calls begin, end and are
// canceled, and Closed is called in between: for the race detector,
// above all.
func TestASessionIsReadAndWrittenAtOnce(t *testing.T) {
	const calls = 300
	a, b := net.Pipe()
	p := &Protocol{MaxMemory: 1 << 20}
	server := &runner{t: t, s: mustServe(t, p), nc: b}
	client := &runner{t: t, s: mustDial(t, p, 0), nc: a}
	var answering, over, readers sync.WaitGroup
	server.on = func(f *frame.Frame) {
		if f.Kind != frame.EOS {
			return
		}
		id := f.Stream
		go func() {
			defer answering.Done()
			server.write(
				server.control(frame.Frame{Kind: frame.Accept, Stream: id}),
				func(o *frame.Out) { server.s.Messages(o, id, runOf([]byte("hi"))) },
				server.control(frame.Frame{Kind: frame.EOS, Stream: id}))
		}()
	}
	answering.Add(calls)
	given := map[uint64]bool{}
	for i := range calls {
		given[uint64(2*i+1)] = i%3 == 0
	}
	client.on = func(f *frame.Frame) {
		if f.Kind == frame.EOS && !given[f.Stream] {
			over.Done()
		}
	}
	readers.Go(server.read)
	readers.Go(client.read)
	for i := range calls {
		id := uint64(2*i + 1)
		if !given[id] {
			over.Add(1)
		}
		client.write(
			client.control(frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: fmt.Sprintf("#%d", i), Grants: make([]frame.Grant, 1)}),
			func(o *frame.Out) { client.s.Messages(o, id, runOf([]byte("ask"))) },
			client.control(frame.Frame{Kind: frame.EOS, Stream: id}))
		if given[id] {
			client.write(client.control(frame.Frame{Kind: frame.Reset, Stream: id}))
		}
	}
	over.Wait()
	answering.Wait()
	server.s.Closed()
	_ = a.Close()
	_ = b.Close()
	readers.Wait()
	if p.budget.used != 0 {
		t.Errorf("%d bytes are in use", p.budget.used)
	}
}
