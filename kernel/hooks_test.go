package kernel_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A hook's panic ends its own connection, is counted and logged with its value and
// stack; other connections go on.
func TestAHookThatPanics(t *testing.T) {
	faults := map[string]func(){"panic": func() { panicsHere() }, "exit": runtime.Goexit}
	for name, fault := range faults {
		for hook, o := range map[string]*kernel.ServerOptions{
			"Authenticate": {Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
				if string(p.Token) == "bad" {
					fault()
				}
				return nil, nil
			}},
			"OnConn": {OnConn: func(c *kernel.Conn) {
				if string(c.Peer().Token) == "bad" {
					fault()
				}
			}},
		} {
			t.Run(hook+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log journal
					o.Logger = log.Logger()
					ln := kerneltest.Listen()
					srv, good := serve(t, o, &kernel.ClientOptions{Dial: ln.Dial}, memoryListener{ln})
					srv.Handle("echo", echo)
					w := &world{World: &testkit.World{T: t, Ctx: context.Background(), Srv: srv, Client: good}}
					w.Call("echo", "before", "before")

					bad := must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, quietClient(&kernel.ClientOptions{
						Dial: ln.Dial, Token: []byte("bad"),
					})))
					if c, err := bad.Conn(w.Ctx); err == nil { // OnConn comes after the handshake
						<-c.Done()
					}
					_ = bad.Close()
					if n := srv.Stats().Panics; n == 0 { // a client whose connection ends at once may try again
						t.Error("no panic is counted")
					}
					value := map[string]string{"panic": "panic=secret", "exit": "panic=runtime.Goexit"}[name]
					for _, want := range []string{"hook panicked", "hook=" + hook, value, "hooks_test.go"} {
						if !strings.Contains(log.String(), want) {
							t.Errorf("%q is not in the log: %s", want, &log)
						}
					}
					w.Call("echo", "after", "after")
				})
			})
		}
	}
}
