package strm

import (
	"fmt"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/pool"
)

// benchSizes are messages on the way: one that is copied, one that is not.
var benchSizes = []int{64, 64 << 10}

// burst is how many messages a stream writes in a turn.
const burst = 64

// streamsOf makes sessions with n established streams: one of ours as the client,
// and one of the native protocol, which keeps no table of streams.
func streamsOf(b *testing.B, n int) map[string]frame.Session {
	b.Helper()
	c, _ := establishedPair(b, n, n)
	return map[string]frame.Session{"brpc": c.Session, "native": native.New(maxFragment)}
}

func BenchmarkMessages(b *testing.B) {
	for _, size := range benchSizes {
		for _, n := range []int{1, 16} {
			for name, s := range streamsOf(b, n) {
				b.Run(fmt.Sprintf("%s/size=%d/streams=%d", name, size, n), func(b *testing.B) {
					benchMessages(b, s, size, n)
				})
			}
		}
	}
}

// benchMessages writes bursts: of one stream, or a message of each in turn.
func benchMessages(b *testing.B, s frame.Session, size, n int) {
	payload := make([]byte, size)
	runs := make([]pool.Queue, burst)
	each := burst
	if n > 1 {
		each = 1
	}
	var o frame.Out
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; i < b.N; i += burst {
		b.StopTimer()
		for j := range burst {
			runs[j/each].Push(pool.Copy(payload))
		}
		b.StartTimer()
		for j := range burst / each {
			s.Messages(&o, uint64(1+j%n*2), runs[j])
			runs[j] = pool.Queue{}
		}
		o.Reset()
	}
}

func BenchmarkNext(b *testing.B) {
	for _, size := range benchSizes {
		for _, n := range []int{1, 16} {
			for name, s := range streamsOf(b, n) {
				b.Run(fmt.Sprintf("%s/size=%d/streams=%d", name, size, n), func(b *testing.B) {
					in := incoming(b, s, size, n)
					var f frame.Frame
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for got := 0; got < b.N; {
						for rest := in; ; {
							used, err := s.Next(rest, &f)
							if err != nil {
								b.Fatal(err)
							}
							rest = rest[used:]
							if f.Kind == frame.None {
								break
							}
							if f.Last {
								got++
							}
						}
					}
				})
			}
		}
	}
}

// A report comes with each message of a conversation.
func BenchmarkReports(b *testing.B) {
	c, _ := establishedPair(b, 16, 16)
	for _, st := range c.table.streams {
		st.sent.Store(1 << 20)
	}
	var in []byte
	for i := range burst {
		in = appendFeedback(in, int64(1+i%16*2), 1, uint64(1000+i))
	}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		var f frame.Frame
		for got := 0; got < b.N; {
			for rest := in; ; got++ {
				used, err := c.Next(rest, &f)
				if err != nil {
					b.Fatal(err)
				}
				if rest = rest[used:]; f.Kind == frame.None {
					break
				}
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		var o frame.Out
		f := frame.Frame{Kind: frame.Credit, Value: 1000}
		for i := range b.N {
			f.Stream = uint64(1 + i%16*2)
			c.Control(&o, &f)
			if i%burst == 0 {
				o.Reset()
			}
		}
	})
}

// incoming is a burst for n streams of s, as their peer writes it.
func incoming(b *testing.B, s frame.Session, size, n int) []byte {
	b.Helper()
	msg := string(make([]byte, size))
	var in []byte
	for i := range burst {
		id := uint64(1 + i%n*2)
		if _, ok := s.(*Session); ok {
			in = append(appendDataHead(in, int64(id), int64(id), size, false), msg...)
			continue
		}
		in = append(in, nativeMessage(id, msg)...)
	}
	return in
}

func nativeMessage(id uint64, msg string) []byte {
	var o frame.Out
	var run pool.Queue
	run.Push(pool.Copy([]byte(msg)))
	s := native.New(maxFragment)
	s.Messages(&o, id, run)
	var b []byte
	for _, p := range o.Vec(nil) {
		b = append(b, p...)
	}
	o.Reset()
	return b
}

// Nothing is allocated for a message of an established stream, nor for a report.
func TestMessagesCostNoAllocation(t *testing.T) {
	c, s := establishedPair(t, 4, 4)
	msg := make([]byte, 64)
	var o frame.Out
	var f frame.Frame
	var in []byte
	id, taken := uint64(1), uint64(0)
	allocs := testing.AllocsPerRun(1000, func() {
		id = (id + 2) % 8
		var run pool.Queue
		for range 4 {
			run.Push(pool.Copy(msg))
		}
		taken += 64
		c.Messages(&o, id, run)
		f = frame.Frame{Kind: frame.Credit, Stream: id, Value: taken}
		s.Control(&o, &f)
		in = append(in[:0], o.Buf...)
		o.Reset()
		for rest := in[:4*(20+64)]; ; {
			n, err := s.Next(rest, &f)
			if err != nil {
				t.Fatal(err)
			}
			if rest = rest[n:]; f.Kind == frame.None {
				break
			}
		}
		if n, err := c.Next(in[4*(20+64):], &f); err != nil || f.Kind != frame.Credit || n == 0 {
			t.Fatal(n, err, f.Kind)
		}
	})
	if recycled() && allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// recycled tells whether released messages are used again: checked builds leave
// them to the garbage collector.
func recycled() bool {
	m := pool.Copy(make([]byte, 64))
	n := pool.Outstanding()
	m.Release()
	return n == 0
}

// A talk passes bytes between a client and a server without keeping any.
type talk struct {
	b    testing.TB
	c, s *Session
	o    frame.Out
	buf  []byte
	f    frame.Frame
	run  pool.Queue
	n    int // events
}

// say has from write f, and whatever it answers, to to.
func (k *talk) say(from, to *Session, f frame.Frame) {
	from.Control(&k.o, &f)
	k.deliver(from, to)
}

func (k *talk) send(from, to *Session, id uint64, p []byte) {
	k.run.Push(pool.Copy(p))
	from.Messages(&k.o, id, k.run)
	k.run = pool.Queue{}
	k.deliver(from, to)
}

func (k *talk) deliver(from, to *Session) {
	k.buf = append(k.buf[:0], k.o.Buf...)
	k.o.Reset()
	for rest := k.buf; ; k.n++ {
		n, err := to.Next(rest, &k.f)
		if err != nil {
			k.b.Fatal(err)
		}
		rest = rest[n:]
		switch k.f.Kind {
		case frame.None:
			if k.o.Len() > 0 {
				k.deliver(to, from)
			}
			return
		case frame.Reply:
			to.Control(&k.o, &k.f)
		}
	}
}

func newTalk(b *testing.B) *talk {
	b.ReportAllocs()
	return &talk{b: b, c: connect(b, true, ""), s: connect(b, false, "")}
}

func BenchmarkCall(b *testing.B) {
	k := newTalk(b)
	msg := []byte("hello")
	for i := range b.N {
		id := uint64(1 + 2*i)
		k.say(k.c, k.s, frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: "lab.StreamLab/Echo"})
		k.send(k.c, k.s, id, msg)
		k.say(k.c, k.s, eos(id))
		k.say(k.s, k.c, frame.Frame{Kind: frame.Accept, Stream: id})
		k.send(k.s, k.c, id, msg)
		k.say(k.s, k.c, eos(id))
	}
	if k.n != 6*b.N || k.c.left()+k.s.left() != 0 {
		b.Fatalf("%d events", k.n)
	}
}

// BenchmarkOpenClose opens a stream, sends one message each way, and closes it.
func BenchmarkOpenClose(b *testing.B) {
	k := newTalk(b)
	msg := []byte("hello")
	gs := grants(1)
	for i := range b.N {
		id := uint64(1 + 2*i)
		k.say(k.c, k.s, frame.Frame{Kind: frame.Open, Stream: id, Method: "lab.StreamLab/Open", Grants: gs})
		k.say(k.s, k.c, frame.Frame{Kind: frame.Accept, Stream: id, Grants: gs})
		k.send(k.c, k.s, id, msg)
		k.send(k.s, k.c, id, msg)
		k.say(k.c, k.s, eos(id))
		k.say(k.s, k.c, eos(id))
	}
	if k.c.left()+k.s.left() != 0 {
		b.Fatal("streams are left")
	}
}
