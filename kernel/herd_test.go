package kernel_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// Clients that have lost their server at the same moment don't come back at the same moment: by
// default their attempts are spread, and become fewer.
func TestClientsThatLostTheirServerComeBackApart(t *testing.T) {
	const clients, instant = 300, 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var dials []time.Duration
		start := time.Now()
		dial := func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dials = append(dials, time.Since(start))
			return nil, syscall.ECONNREFUSED
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range clients {
			c := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, &kernel.ClientOptions{Dial: dial, Logger: quietClient(nil).Logger}))
			wg.Go(func() {
				if _, err := c.Open(ctx, "x", &kernel.OpenOptions{WaitForReady: true}); err == nil {
					t.Error("a stream is open")
				}
				ok(t, c.Close())
			})
		}
		wg.Wait()
		at := map[time.Duration]int{} // how many attempts, by the instant
		for _, d := range dials {
			if d > 0 { // the first was their programs'
				at[d/instant]++
			}
		}
		if n := len(dials) / clients; n < 4 || n > 8 {
			t.Errorf("%d attempts of each in 20 s", n)
		}
		for i, n := range at {
			if n > clients/10 {
				t.Errorf("%d of %d clients dial at %v", n, clients, i*instant)
			}
		}
	})
}
