package native

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// seeds adds a session of every kind of frame, in records or not, and every
// frame that must be refused.
func seeds(f *testing.F) {
	for _, checked := range []bool{false, true} {
		b := session(checked)
		f.Add(checked, uint64(1), b)
		f.Add(checked, uint64(2), b[:len(b)/2])
	}
	for _, c := range bad {
		b := unhex(f, c.hex)
		f.Add(false, uint64(3), b)
		f.Add(true, uint64(4), sealed(b))
	}
}

// session is what one side writes: every kind of frame, messages of many sizes, and
// fragments of two streams that alternate.
func session(checked bool) []byte {
	w, _ := pair(checked)
	var b []byte
	for i := range controls {
		if controls[i].frame.Kind == frame.Hello {
			continue
		}
		b = append(b, written(w, func(o *frame.Out) { w.Control(o, &controls[i].frame) })...)
	}
	return append(b, written(w, func(o *frame.Out) {
		for _, n := range []int{0, 1, 64, wholeMax, wholeMax + 1, 20_000, DefaultMaxFragment} {
			w.Message(o, 1, filled(n))
		}
		one, two := filled(100_000), filled(5)
		fragment(w, o, 1, one, 0, DefaultMaxFragment)
		fragment(w, o, 3, two, 0, 0)
		fragment(w, o, 1, one, DefaultMaxFragment, 100_000-DefaultMaxFragment)
		fragment(w, o, 3, two, 0, 0)
		w.Control(o, &frame.Frame{Kind: frame.EOS, Stream: 1})
	})...)
}

// cutter sizes pieces at random, mostly small ones.
func cutter(seed uint64) func() int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() int { return 1 + r.IntN(1<<r.IntN(15)) }
}

// same compares what came of two ways of cutting the same bytes.
func same(a, b []event, aerr, berr error) error {
	if fmt.Sprint(aerr) != fmt.Sprint(berr) {
		return fmt.Errorf("one way ended with %v, the other with %v", aerr, berr)
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d events one way, %d the other", len(a), len(b))
	}
	for i := range a {
		if a[i].head != b[i].head || a[i].first != b[i].first || a[i].last != b[i].last || !bytes.Equal(a[i].payload, b[i].payload) {
			return fmt.Errorf("event %d is %v one way, %v the other", i, a[i], b[i])
		}
	}
	return nil
}

// FuzzSplit: any bytes, cut in any way, give the same events and the same error,
// and never panic.
func FuzzSplit(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, checked bool, seed uint64, b []byte) {
		_, one := pair(checked)
		a, aerr := read(one, b, whole)
		for name, cut := range map[string]func() int{"at random": cutter(seed), "byte by byte": bytewise} {
			_, two := pair(checked)
			c, cerr := read(two, b, cut)
			if err := same(a, c, aerr, cerr); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

// FuzzAllocation: what a decoder takes of memory is bounded by what came, and
// what a length announces costs no more than one piece.
func FuzzAllocation(f *testing.F) {
	for _, c := range bad {
		f.Add(false, uint64(0), unhex(f, c.hex))
	}
	f.Add(true, uint64(0), session(true)[:1000])
	f.Fuzz(func(t *testing.T, checked bool, _ uint64, b []byte) {
		// A field of metadata takes two bytes on the wire and 32 here, and a
		// frame's strings are copied; the runtime counts by whole spans.
		most := uint64(512<<10 + 40*len(b))
		got := allocatedBy(checked, b)
		for range 5 { // the count is the process's, and the fuzzer allocates too
			if got <= most {
				return
			}
			got = min(got, allocatedBy(checked, b))
		}
		t.Errorf("%d bytes were allocated for %d, at most %d are allowed", got, len(b), most)
	})
}

// allocatedBy is how many bytes the process allocates while b is read.
func allocatedBy(checked bool, b []byte) uint64 {
	_, r := pair(checked)
	before := allocated()
	var fr frame.Frame
	for {
		n, err := r.Next(b, &fr)
		b = b[n:]
		if err != nil || fr.Kind == frame.None {
			return allocated() - before
		}
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// FuzzIdentity: whatever frames a writer is asked for, a reader gives back.
func FuzzIdentity(f *testing.F) {
	for i := range byte(16) {
		f.Add(i%2 == 0, uint64(i), []byte{i, 200, i + 1, 3, i + 2, 77, i + 3, 9})
	}
	f.Fuzz(func(t *testing.T, checked bool, seed uint64, program []byte) {
		w, r := pair(checked)
		rnd := rand.New(rand.NewPCG(seed, 2))
		var want []event
		b := written(w, func(o *frame.Out) {
			for _, op := range program[:min(len(program), 64)] {
				want = put(w, o, rnd, op, want)
			}
		})
		got, err := read(r, b, cutter(seed))
		if err := same(want, got, nil, err); err != nil {
			t.Fatal(err)
		}
	})
}

// put appends one frame or message that op chooses, and what must come of it.
func put(w *Session, o *frame.Out, rnd *rand.Rand, op byte, want []event) []event {
	id := uint64(1 + rnd.IntN(5))
	switch op % 16 {
	case 0, 1, 2:
		m := filled(rnd.IntN(1 << rnd.IntN(17)))
		if m.Len() > DefaultMaxFragment {
			m.Truncate(DefaultMaxFragment)
		}
		if rnd.IntN(4) == 0 {
			pool.MarkPacked(m)
		}
		want = merge(want, dataEvent(id, m, 0, m.Len()))
		w.Message(o, id, m)
		return want
	case 3:
		return fragments(w, o, rnd, id, want)
	}
	fr := randomFrame(rnd, op, id)
	w.Control(o, fr)
	return merge(want, event{head: describe(fr)})
}

// dataEvent is what comes of n bytes of m, from off on.
func dataEvent(id uint64, m pool.Message, off, n int) event {
	return eventOf(&frame.Frame{
		Kind: frame.Data, Stream: id, Payload: m.Bytes()[off : off+n],
		First: off == 0, Last: off+n == m.Len(), Packed: off == 0 && pool.IsPacked(m), Total: m.Len(),
	})
}

// fragments cuts one message.
func fragments(w *Session, o *frame.Out, rnd *rand.Rand, id uint64, want []event) []event {
	m := filled(2 + rnd.IntN(200_000))
	if rnd.IntN(4) == 0 {
		pool.MarkPacked(m)
	}
	for off := 0; off < m.Len(); {
		n := min(1+rnd.IntN(DefaultMaxFragment), m.Len()-off)
		if off == 0 {
			n = min(n, m.Len()-1)
		}
		want = merge(want, dataEvent(id, m, off, n))
		fragment(w, o, id, m, off, n)
		off += n
	}
	return want
}

func randomFrame(rnd *rand.Rand, op byte, id uint64) *frame.Frame {
	f := &frame.Frame{Stream: id, Value: rnd.Uint64() >> rnd.IntN(64)}
	text := func(n int) string {
		b := make([]byte, rnd.IntN(n))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return string(b)
	}
	reports := func() { f.Code, f.Reason = status.Code(rnd.Uint32()>>rnd.IntN(32)), text(300) }
	metadata := func() {
		for range rnd.IntN(5) {
			f.Metadata = append(f.Metadata, metadata.Field{Key: text(20), Value: text(2000)})
		}
	}
	grants := func() {
		for range 1 + rnd.IntN(3) {
			f.Grants = append(f.Grants, frame.Grant{
				Credit: rnd.Uint64() >> (33 + rnd.IntN(31)), Limit: rnd.Uint64() >> rnd.IntN(64), NoReceive: rnd.IntN(2) == 0,
			})
		}
		f.FollowsData, f.Payload = rnd.IntN(2) == 0, []byte(text(20_000))
	}
	switch op % 16 {
	case 4:
		f.Kind, f.Method, f.Deadline = frame.Open, text(100), time.Duration(rnd.Int32())*time.Microsecond
		grants()
		metadata()
	case 5:
		f.Kind = frame.Accept
		grants()
		metadata()
	case 6:
		f.Kind, f.NotProcessed = frame.Reject, rnd.IntN(2) == 0
		reports()
		metadata()
	case 7:
		f.Kind = frame.EOS
		reports()
		metadata()
	case 8:
		f.Kind = frame.Reset
		reports()
	case 9:
		f.Kind = frame.GoAway
		reports()
	case 10:
		f.Kind, f.Code = frame.Stop, status.Code(rnd.Uint32())
	case 11:
		f.Kind = frame.Ended
	case 12:
		f.Kind = frame.Credit
	case 13:
		f.Kind = frame.Read
	case 14:
		f.Kind = frame.Ping
	default:
		f.Kind = frame.Pong
	}
	return f
}

// FuzzHello: a handshake reads any input without a panic, accepts no settings out of
// range, and does not consume what follows the hello. Some inputs are wrapped in the magic
// and a record with the right checksums, which a fuzzer would not find.
func FuzzHello(f *testing.F) {
	hello := greet(&controls[0].frame)
	f.Add(false, hello, uint64(1))
	f.Add(false, append(append([]byte(nil), hello...), "and more"...), uint64(2))
	f.Add(false, []byte("GET / HTTP/1.1\r\n\r\n"), uint64(3))
	f.Add(false, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), uint64(4))
	f.Add(true, unhex(f, controls[0].hex), uint64(5))
	for _, c := range bad {
		f.Add(true, unhex(f, c.hex), uint64(6))
	}
	f.Fuzz(func(t *testing.T, isFrame bool, in []byte, seed uint64) {
		if isFrame {
			in = append([]byte(Magic), sealed(in[:min(len(in), maxControl)])...)
		}
		one, two := &script{in: in, next: whole}, &script{in: in, next: cutter(seed)}
		a, b := greeting(), greeting()
		_, aerr := Protocol{}.Handshake(t.Context(), one, a)
		_, berr := Protocol{}.Handshake(t.Context(), two, b)
		if (aerr == nil) != (berr == nil) || codeOf(aerr) != codeOf(berr) {
			t.Fatalf("in one piece %v, in several %v", aerr, berr)
		}
		if aerr != nil {
			return
		}
		if err := checkSettings(&a.Peer); err != nil || !reflect.DeepEqual(a.Peer, b.Peer) {
			t.Fatalf("accepted %+v and %+v: %v", a.Peer, b.Peer, err)
		}
		if p := a.Peer; p.MinVersion > Version || p.MaxVersion < Version {
			t.Fatalf("accepted versions %d to %d", p.MinVersion, p.MaxVersion)
		}
		if !bytes.Equal(append(a.Early, one.in...), append(b.Early, two.in...)) {
			t.Error("what follows the hello differs")
		}
	})
}

func greeting() *frame.Greeting {
	return &frame.Greeting{Own: frame.Settings{
		MaxFragment: DefaultMaxFragment, MaxMessage: 4 << 20, MaxStreams: 100, InitialCredit: 1 << 10, ConnCredit: 1 << 20,
	}}
}

// script is a connection that returns a given input.
type script struct {
	in   []byte
	out  bytes.Buffer
	next func() int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, errOver
	}
	n := copy(p[:min(len(p), max(s.next(), 1))], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }

var errOver = fmt.Errorf("the script is over")
