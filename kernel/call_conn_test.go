package kernel_test

import (
	"testing"

	"github.com/sluicerpc/sluice/kernel"
)

// A call says which connection it was made on.
func TestCallTellsItsConnection(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("#1", echo)
		conn := must[*kernel.Conn](t)(w.Client.Conn(t.Context()))
		for _, c := range []kernel.Caller{w.Client, conn} {
			var on *kernel.Conn
			m, err := c.Call(t.Context(), "#1", text("x"), &kernel.CallOptions{Conn: &on})
			if err != nil {
				t.Fatal(err)
			}
			m.Release()
			if on != conn {
				t.Errorf("the call was made on %p, and %p is the connection", on, conn)
			}
		}
	})
}
