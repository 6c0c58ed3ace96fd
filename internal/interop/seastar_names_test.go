package interop

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/kernel"
)

// A handler that no client can call is found in the log, and not by its silence.
func TestSeastarNamesThatNobodyCanSay(t *testing.T) {
	for name, c := range map[string]struct {
		protocols []frame.Protocol
		warns     bool
	}{
		"numbers alone":     {[]frame.Protocol{&seastar.Protocol{}}, true},
		"and sluice's wire": {[]frame.Protocol{native.Protocol{}, &seastar.Protocol{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hs := &kernel.Handlers{}
				for _, pattern := range []string{kernel.Verb(7), "", "pkg.Service/Method", "pkg.Service/", "#", "#seven"} {
					hs.Handle(pattern, func(context.Context, *kernel.Stream) error { return nil })
				}
				tg := newTarget(t, true, kernel.ServerOptions{Protocols: c.protocols, Handlers: hs})
				synctest.Wait()
				log := tg.Log.String()
				for _, m := range []string{"pkg.Service/Method", "pkg.Service/", "#", "#seven"} {
					if warned := strings.Contains(log, "method="+m+"\n"); warned != c.warns {
						t.Errorf("%q is warned of: %v; logged:\n%s", m, warned, log)
					}
				}
				if strings.Contains(log, "#7") {
					t.Errorf("a verb is warned of:\n%s", log)
				}
			})
		})
	}
}
