package strm

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
)

// A pipe is one direction of a connection.
type pipe chan []byte

// run is a side as a connection runs it: one goroutine reads, one writes, and what
// is read tells the writer what to do.
type run struct {
	s      *Session
	todo   chan func(o *frame.Out)
	events func(f *frame.Frame)
}

func (r *run) read(in pipe) error {
	var f frame.Frame
	for p := range in {
		for rest := p; ; {
			n, err := r.s.Next(rest, &f)
			if err != nil {
				return err
			}
			if rest = rest[n:]; f.Kind == frame.None {
				break
			}
			if f.Kind == frame.Reply {
				a := f
				r.todo <- func(o *frame.Out) { r.s.Control(o, &a) }
				continue
			}
			r.events(&f)
		}
	}
	return nil
}

func (r *run) write(out pipe) {
	defer close(out)
	var o frame.Out
	var l frame.Frame
	for f := range r.todo {
		f(&o)
		if b := flatten(r.s, &o); len(b) > 0 {
			out <- b
		}
		for r.s.Event(&l) {
			r.events(&l)
		}
	}
}

// Reading and writing go on at once, and share the table of streams: the race
// detector looks on while streams open, echo, and end in every way.
func TestReadingAndWritingAtOnce(t *testing.T) {
	synctest.Test(t, readAndWrite)
}

func readAndWrite(t *testing.T) {
	const streams, messages = 300, 20
	up, down := make(pipe, 100), make(pipe, 100)
	c := &run{s: connect(t, true, ""), todo: make(chan func(*frame.Out), 10_000)}
	s := &run{s: connect(t, false, ""), todo: make(chan func(*frame.Out), 10_000)}
	var over sync.WaitGroup
	over.Add(streams)
	echoed := map[uint64]int{}
	c.events = func(f *frame.Frame) {
		id := f.Stream
		switch f.Kind {
		case frame.Accept:
			c.todo <- func(o *frame.Out) {
				for i := range messages {
					o.Buf = append(o.Buf, send(c.s, id, fmt.Sprint(id, "/", i))...)
				}
			}
		case frame.Data:
			if want := fmt.Sprint(id, "/", echoed[id]); string(f.Payload) != want {
				t.Errorf("%q came, want %q", f.Payload, want)
			}
			total := uint64(echoed[id] + 1)
			echoed[id]++
			c.todo <- func(o *frame.Out) { c.s.Control(o, &frame.Frame{Kind: frame.Credit, Stream: id, Value: total}) }
			if echoed[id] == messages {
				last := eos(id)
				if id%3 == 0 {
					last = abort(id)
					defer over.Done()
				}
				c.todo <- func(o *frame.Out) { c.s.Control(o, &last) }
			}
		case frame.EOS, frame.Reset:
			over.Done()
		}
	}
	s.events = func(f *frame.Frame) {
		id := f.Stream
		switch f.Kind {
		case frame.Open:
			a := accepting(id, 1)
			s.todo <- func(o *frame.Out) { s.s.Control(o, &a) }
		case frame.Data:
			msg := string(f.Payload)
			s.todo <- func(o *frame.Out) { o.Buf = append(o.Buf, send(s.s, id, msg)...) }
		case frame.Stop:
			s.todo <- func(o *frame.Out) { s.s.Control(o, &frame.Frame{Kind: frame.EOS, Stream: id}) }
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.write(up) })
	wg.Go(func() { s.write(down) })
	wg.Go(func() {
		if err := s.read(up); err != nil {
			t.Error(err)
		}
		close(s.todo)
	})
	readers := make(chan error, 1)
	wg.Go(func() { readers <- c.read(down) })
	for i := range uint64(streams) {
		f := opening(1+2*i, 1)
		c.todo <- func(o *frame.Out) { c.s.Control(o, &f) }
	}
	over.Wait()
	synctest.Wait() // the last answers of the handshakes are on their way
	if n, m := c.s.left(), s.s.left(); n != 0 || m != 0 {
		t.Errorf("%d and %d streams are left", n, m)
	}
	close(c.todo)
	wg.Wait()
	if err := <-readers; err != nil {
		t.Error(err)
	}
}

// The grants of an event are in the caller's memory: the caller passes a frame on to code
// that writes there.
func TestGrantsAreTheCallers(t *testing.T) {
	c, s := connect(t, true, ""), connect(t, false, "")
	read := func(id uint64) frame.Frame {
		var f frame.Frame
		if _, err := s.Next(control(c, opening(id, 3)), &f); err != nil || f.Kind != frame.Open || len(f.Grants) != 3 {
			t.Fatalf("%s, %v", describe(&f), err)
		}
		return f
	}
	first := read(1)
	first.Grants[0] = frame.Grant{Limit: 4711, NoReceive: true}
	second := read(7)
	for i, g := range second.Grants {
		if g != (frame.Grant{}) {
			t.Errorf("grant %d is %+v", i, g)
		}
	}
	if first.Grants[0].Limit != 4711 {
		t.Error("a frame that others have was written to")
	}
}
