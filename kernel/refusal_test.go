package kernel_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// What this side refuses a stream with is its code, for the Observer too, whether the code is the
// library's or an application's.
func TestARefusalHasACode(t *testing.T) {
	for _, code := range []status.Code{status.NotFound, status.FirstAppCode + 7} {
		synctest.Test(t, func(t *testing.T) {
			o := newWatcher()
			w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Observer: o}, nil)
			w.Srv.Handle("refused", func(context.Context, *kernel.Stream) error {
				return &status.HandlerError{Code: code, Reason: "no"}
			})
			s := w.Open("refused")
			<-s.Done()
			synctest.Wait()
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, i := range o.streams {
				if i == nil || i.Code != code || i.Latency != 0 {
					t.Errorf("%+v, want %v", i, code)
				}
			}
			if len(o.streams) != 1 {
				t.Errorf("%d streams", len(o.streams))
			}
		})
	}
}
