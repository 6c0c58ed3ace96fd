package native

import (
	"fmt"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// benchRun is how many messages of one stream are encoded or decoded in a row.
const benchRun = 256

func plainAndChecked(b *testing.B, f func(b *testing.B, s *Session)) {
	for _, checked := range []bool{false, true} {
		b.Run(fmt.Sprintf("checked=%v", checked), func(b *testing.B) {
			s := New(DefaultMaxFragment)
			if checked {
				s.SetChecksum(true)
			}
			b.ReportAllocs()
			f(b, s)
		})
	}
}

// Encoding, with the release of the messages.
func BenchmarkMessages(b *testing.B) {
	for _, n := range []int{64, 1 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			plainAndChecked(b, func(b *testing.B, s *Session) {
				o, p := &frame.Out{}, make([]byte, n)
				b.SetBytes(int64(n))
				for i := 0; i < b.N; i += benchRun {
					b.StopTimer()
					var run pool.Queue
					for range benchRun {
						run.Push(pool.Copy(p))
					}
					b.StartTimer()
					s.Messages(o, 1, run)
					s.Flush(o)
					o.Reset()
				}
			})
		})
	}
}

// Decoding alone: what comes of a frame's bytes is another benchmark's.
func BenchmarkNext(b *testing.B) {
	for _, n := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			plainAndChecked(b, func(b *testing.B, s *Session) {
				in := encoded(s, n)
				var f frame.Frame
				b.SetBytes(int64(n))
				b.ResetTimer()
				for i := 0; i < b.N; i += benchRun {
					for p := in; len(p) > 0 || f.Kind != frame.None; {
						used, err := s.Next(p, &f)
						if err != nil {
							b.Fatal(err)
						}
						p = p[used:]
					}
				}
			})
		})
	}
}

// encoded is benchRun messages of n bytes as s writes them.
func encoded(s *Session, n int) (all []byte) {
	var o frame.Out
	var run pool.Queue
	for range benchRun {
		run.Push(pool.New(n))
	}
	s.Messages(&o, 1, run)
	s.Flush(&o)
	for _, p := range o.Vec(nil) {
		all = append(all, p...)
	}
	o.Reset()
	return all
}

// An open's frame, there and back.
func BenchmarkOpenFrame(b *testing.B) {
	plainAndChecked(b, func(b *testing.B, s *Session) {
		open := &frame.Frame{Kind: frame.Open, Stream: 1, Method: "echo.Echo/Echo", Grants: []frame.Grant{{Credit: 1 << 13}}}
		var o frame.Out
		var f frame.Frame
		for b.Loop() {
			s.Control(&o, open)
			s.Flush(&o)
			for p := o.Buf; len(p) > 0 || f.Kind != frame.None; {
				n, err := s.Next(p, &f)
				if err != nil {
					b.Fatal(err)
				}
				p = p[n:]
			}
			o.Reset()
		}
	})
}

// One small message in a record of its own, there and back.
func BenchmarkLoneMessage(b *testing.B) {
	plainAndChecked(b, func(b *testing.B, s *Session) {
		var o frame.Out
		var f frame.Frame
		m := pool.New(64)
		for b.Loop() {
			var run pool.Queue
			run.Push(m.Share())
			s.Messages(&o, 1, run)
			s.Flush(&o)
			for p := o.Buf; len(p) > 0 || f.Kind != frame.None; {
				n, err := s.Next(p, &f)
				if err != nil {
					b.Fatal(err)
				}
				p = p[n:]
			}
			o.Reset()
		}
	})
}
