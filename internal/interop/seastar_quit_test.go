package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

type (
	messageSink   = rpc.Sink[pool.Message]
	messageSource = rpc.Source[pool.Message]
)

// A client that uploads, closes its sink and then itself has sent all that it had to
// say. The server learns of the end of the connection with the calls before it has read
// that, and the handler still gets it, with the end.
func TestSeastarAnUploadSurvivesTheEndOfTheClient(t *testing.T) {
	const uploads, messages, size = 10, 40, 20 << 10
	for i := range uploads {
		w := overSeastar(t, nil, nil)
		handled := make(chan error, 1)
		ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(9), func(_ context.Context, src *messageSource) (struct{}, error) {
			src.Go(func(ctx context.Context) error {
				for w.Srv.Stats().Conns > 1 && w.Ctx.Err() == nil { // until the connection with the calls has ended
					time.Sleep(time.Millisecond)
				}
				handled <- readUpload(src, messages, size)
				return nil
			})
			return struct{}{}, nil
		}, nil))
		sink := testkit.Must[*messageSink](t)(rpc.NewSink[pool.Message](w.Ctx, w.Client, nil))
		_ = testkit.Must[struct{}](t)(rpc.Call[struct{}, *messageSink](w.Ctx, w.Client, kernel.Verb(9), sink, nil))
		for range messages {
			ok(t, sink.Send(w.Ctx, sized(size, 'u')))
		}
		ok(t, sink.Close(w.Ctx))
		ok(t, w.Client.Close())
		select {
		case err := <-handled:
			if err != nil {
				t.Fatalf("upload %d: %v", i, err)
			}
		case <-w.Ctx.Done():
			t.Fatal("the handler did not get there")
		}
	}
}

func readUpload(src *messageSource, messages, size int) error {
	for i := range messages {
		m, err := src.Receive(context.Background())
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if m.Len() != size {
			return fmt.Errorf("message %d has %d bytes", i, m.Len())
		}
		m.Release()
	}
	if _, err := src.Receive(context.Background()); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end: %w", err)
	}
	return nil
}
