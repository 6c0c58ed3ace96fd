package conn

import (
	"fmt"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/pool"
)

// A burst of small messages from its bytes to its streams, in runs of as many
// messages of one stream.
func BenchmarkInput(b *testing.B) {
	const burst = 512
	for _, run := range []int{1, 8, burst} {
		b.Run(fmt.Sprintf("runs=%d", run), func(b *testing.B) {
			s := newStage(Limits{ConnWindow: 1 << 30}, 1<<30)
			ports := []*talker{s.talker("a", 64, 0), s.talker("b", 64, 0)}
			enc := native.New(native.DefaultMaxFragment)
			var o frame.Out
			for i := range burst / run {
				var q pool.Queue
				for range run {
					q.Push(pool.New(64))
				}
				enc.Messages(&o, ports[i%2].ID(), q)
			}
			b.ReportAllocs()
			b.SetBytes(64)
			b.ResetTimer()
			for i := 0; i < b.N; i += burst {
				s.c.in.recvd = 0 // nobody returns credit here
				if !s.c.Input(o.Buf) {
					b.Fatal(s.c.Err())
				}
			}
		})
	}
}
