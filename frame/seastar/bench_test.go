package seastar

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// sink reads events and forgets them.
func sink(b *testing.B, s frame.Session, p []byte, f *frame.Frame) (n int) {
	for {
		k, err := s.Next(p, f)
		if err != nil {
			b.Fatal(err)
		}
		if p = p[k:]; f.Kind == frame.None {
			return n
		}
		n++
	}
}

// BenchmarkStream: messages of 64 bytes, 100 at a time, written and read.
func BenchmarkStream(b *testing.B) {
	for _, algorithm := range []string{"", LZ4, LZ4Fragmented} {
		b.Run("compression="+algorithm, func(b *testing.B) {
			var rs []record
			if algorithm != "" {
				rs = append(rs, record{featCompress, algorithm})
			}
			from := serverStream(b, &Protocol{Compress: algorithms}, rs...)
			to := serverStream(b, &Protocol{Compress: algorithms}, rs...)
			var f frame.Frame
			sink(b, to, nil, &f)
			var o frame.Out
			p := make([]byte, 64)
			b.SetBytes(100 * 64)
			b.ReportAllocs()
			for b.Loop() {
				var run pool.Queue
				for range 100 {
					run.Push(pool.Copy(p))
				}
				from.Messages(&o, 1, run)
				if n := sink(b, to, o.Buf, &f); n != 100 {
					b.Fatal(n)
				}
				o.Reset()
			}
		})
	}
}

// BenchmarkCall: a call of 64 bytes and its reply, both sides.
func BenchmarkCall(b *testing.B) {
	rs := []record{{featTimeout, ""}, {featHandlerDuration, ""}}
	client, server := mustDial(b, &Protocol{}, 0, rs...), mustServe(b, &Protocol{}, rs...)
	var cf, sf frame.Frame
	var o frame.Out
	open := &frame.Frame{Kind: frame.Open, Unary: true, Method: "#7", Grants: make([]frame.Grant, 1), Deadline: 1e9}
	p := make([]byte, 64)
	one := func() (run pool.Queue) {
		run.Push(pool.Copy(p))
		return run
	}
	id := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		open.Stream = id
		client.Control(&o, open)
		client.Messages(&o, id, one())
		client.Control(&o, o.Scratch(frame.EOS, id))
		if n := sink(b, server, o.Buf, &sf); n != 3 {
			b.Fatal(n)
		}
		o.Reset()
		server.Control(&o, o.Scratch(frame.Accept, id))
		server.Messages(&o, id, one())
		server.Control(&o, o.Scratch(frame.EOS, id))
		if n := sink(b, client, o.Buf, &cf); n != 3 {
			b.Fatal(n)
		}
		o.Reset()
		id += 2
	}
}
