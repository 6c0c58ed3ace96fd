package seastar

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// testLimit is how long a message our sides take, if a test does not care.
const testLimit = 1 << 20

// A clock is what a test sets.
type clock struct{ t time.Time }

func newClock() *clock                   { return &clock{time.Unix(1e9, 0)} }
func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// events feeds p in, cut at the given places, and tells what came of it, one
// line an event. Data's pieces are put together: how they are cut may differ.
func events(s frame.Session, p []byte, cuts ...int) ([]string, error) {
	l := &listener{s: s}
	at := 0
	for _, cut := range append(cuts, len(p)) {
		if err := l.feed(p[at:cut]); err != nil {
			return l.lines, err
		}
		at = cut
	}
	return l.lines, nil
}

// A listener reads a session as its connection does.
type listener struct {
	s       frame.Session
	lines   []string
	frames  []frame.Frame
	message []byte
	max     int // longest piece
}

func (l *listener) feed(p []byte) error {
	for {
		var f frame.Frame
		n, err := l.s.Next(p, &f)
		p = p[n:]
		if err != nil {
			return err
		}
		if f.Kind == frame.None {
			if len(p) > 0 {
				return errors.New("input is left without an event")
			}
			return nil
		}
		if err := l.take(f); err != nil {
			return err
		}
	}
}

func (l *listener) take(f frame.Frame) error {
	if f.Kind == frame.Data {
		if f.First != (l.message == nil) {
			return errors.New("messages are mixed")
		}
		l.max = max(l.max, len(f.Payload))
		l.message = append(l.message, f.Payload...)
		if l.message == nil {
			l.message = []byte{}
		}
		if !f.Last {
			return nil
		}
		if len(l.message) != f.Total {
			return fmt.Errorf("a message of %d bytes was announced with %d", len(l.message), f.Total)
		}
		f.Payload, l.message = l.message, nil
	} else if l.message != nil {
		return fmt.Errorf("%v inside a message", f.Kind)
	}
	f.Grants = slices.Clone(f.Grants)
	l.frames = append(l.frames, f)
	l.lines = append(l.lines, describe(&f))
	return nil
}

func describe(f *frame.Frame) string {
	switch f.Kind {
	case frame.Open:
		return fmt.Sprintf("%d open %q unary=%v value=%#x left=%v grants=%d", f.Stream, f.Method, f.Unary, f.Value, f.Deadline, len(f.Grants))
	case frame.Accept:
		return fmt.Sprintf("%d accept value=%#x grants=%d", f.Stream, f.Value, len(f.Grants))
	case frame.Data:
		return fmt.Sprintf("%d data %x", f.Stream, f.Payload)
	case frame.EOS:
		return strings.TrimSpace(fmt.Sprintf("%d eos %v %s %s", f.Stream, f.Code, f.Reason, f.Metadata.Get(HandlerMicros)))
	case frame.Reject:
		return fmt.Sprintf("%d reject %v %s notprocessed=%v", f.Stream, f.Code, f.Reason, f.NotProcessed)
	case frame.Reply:
		return fmt.Sprintf("%d answer %d %v %s", f.Stream, int64(f.Value), f.Code, f.Reason)
	}
	return fmt.Sprintf("%d kind %d", f.Stream, f.Kind)
}

// locals are the events that writing has caused.
func locals(s frame.Session) (lines []string) {
	for f := (frame.Frame{}); s.Event(&f); {
		lines = append(lines, describe(&f))
	}
	return lines
}

// over tells whether the session has nothing left to do, and how long its connection
// waits for the peer then.
func over(s frame.Session) (linger time.Duration, yes bool) {
	for f := (frame.Frame{}); s.Event(&f); {
		if f.Kind == frame.Finished {
			linger, yes = f.Deadline, true
		}
	}
	return linger, yes
}

// settled is what the hellos of a session's connection have settled.
func settled(s frame.Session) *agreed {
	switch s := s.(type) {
	case *stream:
		return &s.agreed
	case *client:
		return &s.agreed
	case *server:
		return &s.agreed
	}
	return nil
}

func connID(s frame.Session) uint64 { return settled(s).id }

func parentID(s frame.Session) uint64 { return settled(s).parent }

// written is what put appends.
func written(put func(o *frame.Out)) []byte {
	var o frame.Out
	put(&o)
	b := bytes.Join(o.Vec(nil), nil)
	o.Reset()
	return b
}

func control(s frame.Session, f *frame.Frame) []byte {
	return written(func(o *frame.Out) { s.Control(o, f); s.Flush(o) })
}

func send(s frame.Session, id uint64, p []byte) []byte {
	return written(func(o *frame.Out) { s.Messages(o, id, runOf(p)); s.Flush(o) })
}

func runOf(ps ...[]byte) (run pool.Queue) {
	for _, p := range ps {
		run.Push(pool.Copy(p))
	}
	return run
}

// pieces sends p in fragments of n bytes.
func pieces(s frame.Session, id uint64, p []byte, n int) []byte {
	return written(func(o *frame.Out) {
		if len(p) == 0 {
			return
		}
		m := pool.Copy(p)
		for off := 0; off < len(p); off += n {
			fragment(s, o, id, m, off, min(n, len(p)-off))
		}
		s.Flush(o)
	})
}

// A wire is a handshake's other side: what it says, one piece at a time, and what
// it was told.
type wire struct {
	in   []byte
	each int // bytes of a read
	out  bytes.Buffer
	fail error // of writes
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.in) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if w.each > 0 {
		n = min(n, w.each)
	}
	n = copy(p[:n], w.in)
	w.in = w.in[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.fail != nil {
		return 0, w.fail
	}
	return w.out.Write(p)
}

// serve is a server's handshake with a client that says in.
func serve(p *Protocol, in []byte, first, each int) (s frame.Session, out []byte, g *frame.Greeting, err error) {
	g = &frame.Greeting{First: in[:min(first, len(in))], Own: frame.Settings{MaxMessage: testLimit, MaxStreams: 100}}
	w := &wire{in: in[len(g.First):], each: each}
	s, err = p.Handshake(context.Background(), w, g)
	g.Early = append(g.Early, w.in...)
	return s, w.out.Bytes(), g, err
}

// dial is a client's handshake with a server that says in.
func dial(p *Protocol, parent uint64, in []byte) (s frame.Session, out []byte, g *frame.Greeting, err error) {
	g = &frame.Greeting{Client: true, Parent: parent, Own: frame.Settings{MaxMessage: testLimit}}
	w := &wire{in: in}
	s, err = p.Handshake(context.Background(), w, g)
	g.Early = append(g.Early, w.in...)
	return s, w.out.Bytes(), g, err
}

func hello(rs ...record) []byte { return appendHello(nil, rs) }

func mustServe(t testing.TB, p *Protocol, rs ...record) frame.Session {
	t.Helper()
	s, _, _, err := serve(p, hello(rs...), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustDial(t testing.TB, p *Protocol, parent uint64, rs ...record) frame.Session {
	t.Helper()
	s, _, _, err := dial(p, parent, hello(rs...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plainRequest and plainResponse are frames as a peer without any feature sends
// them.
func plainRequest(verb uint64, id int64, p []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, verb)
	b = binary.LittleEndian.AppendUint64(b, uint64(id))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
	return append(b, p...)
}

func plainResponse(id int64, p []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(id))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
	return append(b, p...)
}

func streamFrame(p []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(p))), p...)
}

var endFrame = []byte{0xff, 0xff, 0xff, 0xff}

// codeOf is the code that err ends the connection with.
func codeOf(err error) status.Code {
	var pe *status.ProtocolError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return 0
}

// fatal is what tests and rapid's checks have in common.
type fatal interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func equal(t fatal, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func equalBytes(t fatal, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%x\nwant:\n%x", what, got, want)
	}
}

// fragment has s append n of m's bytes from off: the first piece comes with the
// message's overhead.
func fragment(s frame.Session, o *frame.Out, id uint64, m pool.Message, off, n int) {
	if off == 0 {
		s.Fragment(o, id, m, 0, overhead+n)
		return
	}
	s.Fragment(o, id, m, overhead+off, n)
}

// countFrom has IDs drawn that count from n+1.
func (p *parents) countFrom(n uint64) {
	p.draw = func() uint64 { n++; return n }
}
