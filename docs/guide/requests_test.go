package guide_test

import (
	"context"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

func lookup(ctx context.Context, s *kernel.Stream) error {
	key, err := s.Request(ctx)
	if err != nil {
		return err
	}
	defer key.Release()
	if err := s.SetHeader(metadata.MD{{Key: "age", Value: "3"}}); err != nil {
		return err
	}
	return s.Send(ctx, key.Clone()) // the header goes with this
}

func TestLookup(t *testing.T) {
	testkit.OverNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("lookup", lookup)
		var header metadata.MD
		reply, err := w.Client.Call(w.Ctx, "lookup", text("key"), &kernel.CallOptions{Header: &header})
		if err != nil || string(reply.Bytes()) != "key" || header.Get("age") != "3" {
			t.Errorf("%q, %v, %v", reply.Bytes(), header, err)
		}
		reply.Release()
	})
}
