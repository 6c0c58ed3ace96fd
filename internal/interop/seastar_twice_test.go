package interop

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

// A server that gives two streams one number can't have one of them outlive the
// connection that it belongs to.
func TestStreamsOfOneNumberEndWithTheirParent(t *testing.T) {
	var peers []net.Conn
	client := testkit.Must[*kernel.Client](t)(kernel.Dial(t.Context(), "seastar://memory:0", &kernel.ClientOptions{
		Protocols: []frame.Protocol{&seastar.Protocol{}},
		Logger:    slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := conn.Pipe()
			peers = append(peers, far)
			id := uint64(min(len(peers), 2)) << 16
			go func() {
				readRawHello(t, far)
				_, _ = far.Write(rawHello(rawConnectionID, rawID(id)))
			}()
			return near, nil
		},
	}))
	defer client.Close()
	var ss []*kernel.Stream
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		s, err := client.Open(ctx, "", nil)
		if err != nil { // refused will do
			continue
		}
		ss = append(ss, s)
	}
	if len(ss) == 0 {
		t.Fatal("no stream at all")
	}
	_ = peers[0].Close() // the parent's
	for i, s := range ss {
		select {
		case <-s.Done():
		case <-time.After(patience / 2):
			t.Errorf("stream %d of %d lives on without its parent", i, len(ss))
		}
	}
}
