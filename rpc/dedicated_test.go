package rpc_test

import (
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

func TestDedicatedSinks(t *testing.T) {
	overWires(t, nil, nil, func(t *testing.T, w *world) {
		sumUp(t, w.Srv)
		own := &rpc.SinkOptions{Dedicated: true}
		conn := testkit.Must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))
		for _, c := range []kernel.Caller{w.Client, conn} {
			sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, c, own))
			src := testkit.Must[*intSource](t)(rpc.Call[*intSource, *intSink](w.Ctx, c, "sum", sink, nil))
			if sink.Stream().Conn() == conn || sink.Stream() != src.Stream() {
				t.Error("the sink has no connection of its own")
			}
			finish(t, w, sink, src)
			<-sink.Stream().Conn().Done()
		}
		sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, own))
		_, err := rpc.Call[int32, []*intSink](w.Ctx, w.Client, "sum", []*intSink{sink, newSink(t, w)}, nil)
		isErr(t, "together with one that has none", err, kernel.ErrLimits)
		src := testkit.Must[*intSource](t)(callSum(w, sink))
		ok(t, conn.Close())
		_, err = src.Receive(w.Ctx)
		wantCode(t, err, status.ConnectionLost)
	})
}
