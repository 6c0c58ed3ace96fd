package native

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A record that a test wrote: where it is, and the first of the session's events
// that comes of it.
type recorded struct {
	from, to int // bytes
	first    int // of the events

	before, firstBefore int // the same of the record before it
}

// recordSession writes a session record by record.
func recordSession(t *testing.T) (b []byte, rs []recorded, es []event) {
	t.Helper()
	w, r := pair(true)
	big := filled(70_000)
	for _, put := range []func(o *frame.Out){
		func(o *frame.Out) { w.Control(o, &controls[1].frame); w.Message(o, 1, filled(100)) },
		func(o *frame.Out) {
			for i := range 20 {
				w.Message(o, 1, filled(i))
			}
		},
		func(o *frame.Out) { w.Message(o, 1, filled(5000)) },
		func(o *frame.Out) { w.Message(o, 1, filled(33_000)) }, // read in pieces
		func(o *frame.Out) { fragment(w, o, 1, big, 0, DefaultMaxFragment) },
		func(o *frame.Out) { fragment(w, o, 1, big, DefaultMaxFragment, 70_000-DefaultMaxFragment) },
		func(o *frame.Out) { w.Control(o, &frame.Frame{Kind: frame.EOS, Stream: 1}) },
		func(o *frame.Out) { w.Control(o, &frame.Frame{Kind: frame.Credit, Value: 1 << 20}) },
	} {
		rec := recorded{from: len(b), first: len(es)}
		if n := len(rs) - 1; n >= 0 {
			rec.before, rec.firstBefore = rs[n].from, rs[n].first
		}
		p := written(w, put)
		b = append(b, p...)
		more, err := readPlain(r, p, whole)
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, more...)
		rec.to = len(b)
		rs = append(rs, rec)
	}
	return b, rs, es
}

// Every bit of a recorded session is flipped, one at a time: nothing that the
// damaged record completes comes out, and the reader gives up at it.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	b, rs, es := recordSession(t)
	for ri, rec := range rs {
		every := 1
		if rec.to-rec.from > 1000 {
			every = 499 // of a long payload some bytes are enough
		}
		for i := rec.from; i < rec.to; i++ {
			if i > rec.from+40 && (i-rec.from)%every != 0 && i < rec.to-4 {
				continue
			}
			for bit := range 8 {
				b[i] ^= 1 << bit
				if err := damaged(b, i, rec, es); err != nil {
					t.Fatalf("byte %d (of record %d), bit %d: %v", i-rec.from, ri, bit, err)
				}
				b[i] ^= 1 << bit
			}
		}
	}
}

// damaged reads a session of which byte i of rec is wrong, from the record
// before it on.
func damaged(b []byte, i int, rec recorded, want []event) error {
	from := rec.before
	for _, cut := range []func() int{whole, cutter(uint64(i))} {
		_, r := pair(true)
		got, err := readPlain(r, b[from:min(rec.to+200, len(b))], cut)
		if err == nil {
			return fmt.Errorf("nothing was noticed; %d events", len(got))
		}
		want := want[rec.firstBefore:rec.first]
		if len(got) != len(want) {
			return fmt.Errorf("%d events, %d before the damage: %v", len(got), len(want), got)
		}
		if err := same(want, got, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// readPlain is read, with pieces of a message joined and only what is complete
// returned: a fragment counts when all of it has come.
func readPlain(s *Session, p []byte, next func() int) ([]event, error) {
	var es []event
	var f frame.Frame
	var part []byte
	first, packed := false, false
	for len(p) > 0 {
		n := min(next(), len(p))
		in := p[:n]
		p = p[n:]
		for {
			used, err := s.Next(in, &f)
			in = in[used:]
			if err != nil {
				return es, err
			}
			if f.Kind == frame.None {
				break
			}
			if f.Kind != frame.Data {
				es = append(es, event{head: describe(&f)})
				continue
			}
			if part == nil {
				first, packed = f.First, f.Packed
			}
			part = append(part, f.Payload...)
			if s.reader.left > 0 {
				continue // more pieces of this frame follow
			}
			es = append(es, eventOf(&frame.Frame{
				Kind: frame.Data, Stream: f.Stream, Payload: part, First: first, Last: f.Last, Packed: packed, Total: f.Total,
			}))
			part = nil
		}
	}
	return es, nil
}

func TestAMessageIsNotCompleteBeforeItsChecksumIsRight(t *testing.T) {
	w, r := pair(true)
	b := written(w, func(o *frame.Out) { w.Message(o, 1, filled(50_000)) })
	b[len(b)-1] ^= 1
	var f frame.Frame
	var got []byte
	in := b
	for len(in) > 0 {
		n, err := r.Next(in[:min(len(in), 1000)], &f)
		in = in[n:]
		if err != nil {
			if codeOf(err) != status.Checksum {
				t.Fatal(err)
			}
			break
		}
		if f.Kind == frame.Data {
			got = append(got, f.Payload...)
			if f.Last {
				t.Fatal("the message was completed")
			}
		}
	}
	if len(got) >= 50_000 || len(in) > 0 {
		t.Errorf("%d bytes were handed on, %d left", len(got), len(in))
	}
}

func TestRecordsAreSealedByFlush(t *testing.T) {
	w, r := pair(true)
	for i := range 3 {
		b := written(w, func(o *frame.Out) { w.Message(o, 1, pool.MessageOf(bytes.Repeat([]byte{byte(i)}, 100))) })
		if es, err := read(r, b, whole); err != nil || len(es) != 1 {
			t.Fatalf("flush %d: %v, %v", i, es, err)
		}
	}
}
