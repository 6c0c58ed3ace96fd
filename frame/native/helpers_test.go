package native

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run the test with -rewrite and look at the change\ngot:\n%s", path, got)
	}
}

// written is what a session makes of what f appends.
func written(s *Session, f func(o *frame.Out)) []byte {
	var o frame.Out
	f(&o)
	s.Flush(&o)
	var b []byte
	for _, p := range o.Vec(nil) {
		b = append(b, p...)
	}
	o.Reset()
	return b
}

// pair returns a writer and a reader of the same kind.
func pair(checked bool) (w, r *Session) {
	w, r = New(DefaultMaxFragment), New(DefaultMaxFragment)
	if checked {
		w.SetChecksum(true)
		r.SetChecksum(true)
	}
	return w, r
}

// sealed is a record of the bytes of frames, whatever they are.
func sealed(frames []byte) []byte {
	w, _ := pair(true)
	return written(w, func(o *frame.Out) {
		w.room(o, 0)
		o.Buf = append(o.Buf, frames...)
	})
}

// greet is the magic and a side's first frame, as Handshake writes them.
func greet(f *frame.Frame) []byte {
	w, _ := pair(true)
	return append([]byte(Magic), written(w, func(o *frame.Out) { w.Control(o, f) })...)
}

// An event is a frame as the tests compare it: pieces of one message that came
// in a row are one event, since where a payload is cut depends on how it came.
type event struct {
	head        string
	data        bool
	stream      uint64
	first, last bool
	payload     []byte
}

func (e event) String() string {
	if !e.data {
		return e.head
	}
	return fmt.Sprintf("%s first=%t last=%t %d bytes %x", e.head, e.first, e.last, len(e.payload), brief(e.payload))
}

func brief(p []byte) []byte { return p[:min(len(p), 16)] }

func eventOf(f *frame.Frame) event {
	if f.Kind == frame.Data {
		e := event{
			head: fmt.Sprintf("data stream=%d", f.Stream), data: true, stream: f.Stream,
			first: f.First, last: f.Last, payload: append([]byte(nil), f.Payload...),
		}
		if f.First {
			e.head += fmt.Sprintf(" total=%d", f.Total)
			if f.Packed {
				e.head += " packed"
			}
		}
		return e
	}
	return event{head: describe(f)}
}

// describe tells what a frame that is not Data says.
func describe(f *frame.Frame) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s stream=%d", kindNames[f.Kind], f.Stream)
	switch f.Kind {
	case frame.Open:
		fmt.Fprintf(&b, " method=%q deadline=%v md=%q grants=%v payload=%x follows=%t",
			f.Method, f.Deadline, f.Metadata, f.Grants, f.Payload, f.FollowsData)
	case frame.Accept:
		fmt.Fprintf(&b, " md=%q grants=%v payload=%x follows=%t", f.Metadata, f.Grants, f.Payload, f.FollowsData)
	case frame.Reject:
		fmt.Fprintf(&b, " code=%v reason=%q notProcessed=%t", f.Code, f.Reason, f.NotProcessed)
	case frame.EOS:
		fmt.Fprintf(&b, " code=%v reason=%q md=%q", f.Code, f.Reason, f.Metadata)
	case frame.Reset:
		fmt.Fprintf(&b, " code=%v reason=%q", f.Code, f.Reason)
	case frame.Stop:
		fmt.Fprintf(&b, " code=%v", f.Code)
	case frame.GoAway:
		fmt.Fprintf(&b, " last=%d code=%v reason=%q", f.Value, f.Code, f.Reason)
	case frame.Hello:
		fmt.Fprintf(&b, " %+v", f.Settings)
	case frame.Skip:
	default:
		fmt.Fprintf(&b, " value=%d", f.Value)
	}
	return b.String()
}

var kindNames = map[frame.Kind]string{
	frame.Hello: "hello", frame.Open: "open", frame.Accept: "accept", frame.Reject: "reject",
	frame.Data: "data", frame.EOS: "eos", frame.Ended: "ended", frame.Reset: "reset", frame.Stop: "stop",
	frame.Credit: "credit", frame.Read: "read", frame.Ping: "ping", frame.Pong: "pong",
	frame.GoAway: "goaway", frame.Skip: "skip",
}

// merge appends e, or joins it to the last one if both are of one message.
func merge(es []event, e event) []event {
	if n := len(es) - 1; n >= 0 && es[n].data && e.data && es[n].stream == e.stream && !es[n].last && !e.first {
		es[n].last = e.last
		es[n].payload = append(es[n].payload, e.payload...)
		return es
	}
	return append(es, e)
}

// read feeds p to s in pieces that next sizes, and returns what came out. After
// an error messages that are not complete are left out: how much of the one at
// hand was handed on before depends on the cut.
func read(s *Session, p []byte, next func() int) (es []event, err error) {
	var f frame.Frame
	for len(p) > 0 && err == nil {
		n := max(min(next(), len(p)), 1)
		in := append([]byte(nil), p[:n]...) // a read beyond it is found
		p = p[n:]
		for {
			var used int
			used, err = s.Next(in[:len(in):len(in)], &f)
			if used < 0 || used > len(in) {
				return es, fmt.Errorf("Next used %d of %d bytes", used, len(in))
			}
			in = in[used:]
			if err != nil || f.Kind == frame.None {
				break
			}
			es = merge(es, eventOf(&f))
		}
		if err == nil && len(in) > 0 {
			return es, fmt.Errorf("%d bytes were left and no frame came", len(in))
		}
	}
	if err != nil {
		es = complete(es)
	}
	return es, err
}

// complete leaves out the pieces that no last one followed on their stream.
func complete(es []event) []event {
	ended := map[uint64]bool{}
	var kept []event
	for i := len(es) - 1; i >= 0; i-- {
		e := es[i]
		if e.data && e.last {
			ended[e.stream] = true
		}
		if !e.data || ended[e.stream] {
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	return kept
}

func whole() int { return 1 << 30 }

func bytewise() int { return 1 }

func show(es []event, err error) string {
	var b strings.Builder
	for _, e := range es {
		fmt.Fprintln(&b, e)
	}
	if err != nil {
		fmt.Fprintln(&b, "error:", err)
	}
	return b.String()
}

func codeOf(err error) status.Code {
	var pe *status.ProtocolError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return status.OK
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hexLines is b in lines of up to 16 bytes.
func hexLines(b []byte) string {
	var out strings.Builder
	for i, c := range b {
		switch {
		case i == 0:
		case i%16 == 0:
			out.WriteByte('\n')
		case i%8 == 0:
			out.WriteString("  ")
		default:
			out.WriteByte(' ')
		}
		fmt.Fprintf(&out, "%02x", c)
	}
	return out.String() + "\n"
}

// filled is a message of n bytes that tell their place.
func filled(n int) pool.Message {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return pool.MessageOf(p)
}

// letters is a compressed message, 200 times the letter a: a frame of zstd with one block
// that repeats a byte.
func letters() pool.Message {
	m := pool.MessageOf([]byte("\x02\xc8\x01\x28\xb5\x2f\xfd\x20\xc8\x43\x06\x00a"))
	pool.MarkPacked(m)
	return m
}

func messageOf(text string) pool.Message { return pool.MessageOf([]byte(text)) }

// fragment has s append n of m's bytes from off: the first piece comes with the
// message's overhead.
func fragment(s frame.Session, o *frame.Out, id uint64, m pool.Message, off, n int) {
	if off == 0 {
		s.Fragment(o, id, m, 0, overhead+n)
		return
	}
	s.Fragment(o, id, m, overhead+off, n)
}
