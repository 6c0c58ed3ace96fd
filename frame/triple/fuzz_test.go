package triple

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// FuzzInput reads anything, as a server and as a client, cut in any way. It must end, keep
// to its bounds, and cost what came.
func FuzzInput(f *testing.F) {
	k := start(f, false)
	f.Add(false, uint8(0), append(k.request(1, 0), data(1, fEndStream, msg("x"))...))
	f.Add(false, uint8(3), append(k.request(1, 0), data(1, fPadded, "\x01"+msg("x")+"\x00")...))
	f.Add(true, uint8(1), append(start(f, true).headers(1, 0, ":status", "200", "content-type", "application/grpc"), data(1, 0, msg("x"))...))
	f.Add(false, uint8(2), settingsFrame(setInitialWindow, 7))
	f.Add(false, uint8(0), appendGoAway(appendPing(appendWindowUpdate(appendRST(nil, 1, eCancel), 0, 1), 1, fAck), 1, eNo, "x"))
	f.Fuzz(func(t *testing.T, client bool, cut uint8, in []byte) {
		k := start(t, client)
		if client {
			k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
		}
		k.cut = int(cut)
		k.in(in)
		if n := k.s.Buffered(); n > keptFrame {
			t.Errorf("%d bytes are kept", n)
		}
		if n := int(k.s.streams.n.Load()); n > len(in)/headerLen+1 {
			t.Errorf("%d streams of %d bytes", n, len(in))
		}
		k.s.Flush(&k.o)
		k.o.Reset()
	})
}

// FuzzBlock has header blocks decoded, as a request's and as an answer's.
func FuzzBlock(f *testing.F) {
	k := start(f, false)
	f.Add(k.block(":method", "POST", ":scheme", "http", ":path", "/m", "content-type", "application/grpc", "x-bin", "AP8"))
	f.Add(k.block(":status", "200", "content-type", "application/grpc", "grpc-status", "3", "grpc-message", "%41"))
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) > ownMaxFrame {
			return
		}
		for _, client := range []bool{false, true} {
			k := start(t, client)
			if client {
				k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
			}
			k.in(append(appendHeader(nil, len(block), tHeaders, fEndHeaders|fEndStream, 1), block...))
			k.out()
		}
	})
}

// FuzzConversation has a client and a server of ours talk: a program of opens, messages, ends
// and resets on either side. Neither may find fault with the other.
func FuzzConversation(f *testing.F) {
	f.Add([]byte{0, 1, 2, 9, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{0, 9, 0, 9, 1, 1, 2, 2, 9, 3, 9, 5, 9, 6, 9, 4, 9, 8, 9})
	f.Fuzz(func(t *testing.T, program []byte) {
		a, b := start(t, true, setMaxMessage, 1<<20), start(t, false, setMaxMessage, 1<<20)
		pass := func(from, to *talk) {
			from.s.Flush(&from.o)
			p := bytes.Join(from.o.Vec(nil), nil)
			from.o.Reset()
			to.in(p)
			if to.err != nil {
				t.Fatalf("%v, after %v", to.err, from.frames(p))
			}
			var ev frame.Frame
			for from.s.Event(&ev) {
				continue
			}
		}
		next := uint64(1)
		// What the kernel does of each stream: it accepts once, and sends between that and its end.
		accepted, ended := map[uint64]bool{}, map[bool]map[uint64]bool{true: {}, false: {}}
		for i, op := range program {
			id := uint64(1)
			if next > 1 {
				id = uint64(i)%(next/2)*2 + 1
			}
			switch op % 10 {
			case 0:
				if next < 20 {
					a.do(&frame.Frame{Kind: frame.Open, Stream: next, Method: "m", Grants: []frame.Grant{{Credit: 1000}}})
					next += 2
				}
			case 1:
				if !ended[true][id] {
					a.send(id, "x", "yy")
				}
			case 2:
				if accepted[id] && !ended[false][id] {
					b.send(id, "z")
				}
			case 3:
				ended[true][id] = true
				a.do(&frame.Frame{Kind: frame.EOS, Stream: id})
			case 4:
				ended[false][id] = true
				b.do(&frame.Frame{Kind: frame.EOS, Stream: id, Code: 5})
			case 5:
				ended[true][id] = true
				a.do(&frame.Frame{Kind: frame.Reset, Stream: id, Code: 1})
			case 6:
				ended[false][id] = true
				b.do(&frame.Frame{Kind: frame.Reset, Stream: id, Code: 2})
			case 7:
				a.do(&frame.Frame{Kind: frame.Stop, Stream: id})
				b.do(&frame.Frame{Kind: frame.Stop, Stream: id})
			case 8:
				if b.s.streams.find(uint32(id)) == nil || accepted[id] || ended[false][id] {
					continue
				}
				accepted[id] = true
				b.do(&frame.Frame{Kind: frame.Accept, Stream: id, Grants: []frame.Grant{{Credit: 1000}}})
			case 9:
				pass(a, b)
				pass(b, a)
			}
		}
	})
}

// The decoder that is bounded takes what any encoder writes.
func TestEncodersTable(t *testing.T) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	k := start(t, false)
	for i := range 200 {
		buf.Reset()
		_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: string(rune('a' + i%26))})
		k.in(append(appendHeader(nil, buf.Len(), tHeaders, fEndHeaders|fEndStream, uint32(2*i+1)), buf.Bytes()...))
	}
	if k.err != nil {
		t.Error(k.err)
	}
}

func BenchmarkCutter(b *testing.B) {
	k := start(b, false)
	k.in(k.request(1, 0))
	one := data(1, 0, msg("0123456789012345678901234567890123456789012345678901234567890123"))
	in := bytes.Repeat(one, 100)
	a := pool.GetArena()
	defer pool.PutArena(a)
	f := frame.GetFrame(frame.None)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		p := in
		for len(p) > 0 {
			n, err := k.s.Next(p, f)
			if err != nil {
				b.Fatal(err)
			}
			p = p[n:]
			var q pool.Queue
			p = p[k.s.Run(p, 1, a, &q):]
			q.Release()
		}
	}
}
