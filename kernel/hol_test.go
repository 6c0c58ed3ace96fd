package kernel_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// Small messages don't wait for large ones on the same connection: on a line on which one of those takes
// 80 ms, they take no more than ten times as long as on an idle one, both ways.
func TestSmallMessagesBesideVeryLargeOnes(t *testing.T) {
	const rtt, rate, large = time.Millisecond, 200 << 20, 16 << 20
	for name, limits := range map[string]kernel.Limits{
		"defaults": {MaxMessage: large},
		// Credit makes no room for the small ones there.
		"windows for a whole message": {MaxMessage: large, MaxStreams: 2, StreamWindow: 4 * large, ConnWindow: 4 * large},
	} {
		t.Run(name, func(t *testing.T) { besideVeryLargeOnes(t, rtt, rate, large, limits) })
	}
}

func besideVeryLargeOnes(t *testing.T, rtt time.Duration, rate, large int, limits kernel.Limits) {
	onPath(t, rtt, rate, 1, limits, func(p *longPath) {
		p.srv.Handle("echo", echo)
		s := must[*kernel.Stream](t)(p.client.Open(context.Background(), "echo", nil))
		p99 := func() time.Duration {
			var took []time.Duration
			for range 200 {
				start := time.Now()
				ok(t, s.Send(context.Background(), sized(64, 'x')))
				ok(t, receive(s, context.Background()))
				took = append(took, time.Since(start))
				time.Sleep(3 * time.Millisecond)
			}
			slices.Sort(took)
			return took[len(took)*99/100]
		}
		idle := p99()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		p.send(ctx, large)
		time.Sleep(100 * time.Millisecond)
		before := p.got[0].Load()
		beside := p99()
		if n := p.got[0].Load() - before; n < int64(2*large) {
			t.Fatalf("%d bytes have come beside: too few for the test", n)
		}
		t.Logf("%v on an idle connection, %v beside large messages", idle, beside)
		if beside > 10*idle {
			t.Errorf("%v on an idle connection, %v beside large messages", idle, beside)
		}
		ok(t, s.Close(context.Background()))
	})
}
