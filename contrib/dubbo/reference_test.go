package dubbo_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// A reference's fields are added to whatever is opened or called, unless that has its own, and
// the options that it is given stay as they are.
func TestReferenceAddsMetadata(t *testing.T) {
	got := make(chan metadata.MD, 4)
	var hs kernel.Handlers
	hs.Handle("open", func(_ context.Context, s *kernel.Stream) error {
		got <- s.Metadata()
		return nil
	})
	hs.Handle("call", func(ctx context.Context, s *kernel.Stream) error {
		got <- s.Metadata()
		return s.Send(ctx, pool.MessageOf(nil))
	})
	_, client := kerneltest.Start(t, &kernel.ServerOptions{Handlers: &hs}, nil)
	both := metadata.MD{{Key: dubbo.KeyVersion, Value: "1"}, {Key: dubbo.KeyGroup, Value: "g"}}
	mine := append(make(metadata.MD, 0, 8), metadata.Field{Key: "mine", Value: "x"})
	own := metadata.MD{{Key: dubbo.KeyGroup, Value: "mine"}}
	for name, tc := range map[string]struct {
		ref  dubbo.Reference
		md   metadata.MD
		want metadata.MD
	}{
		"both":           {dubbo.Reference{Version: "1", Group: "g"}, nil, both},
		"a version":      {dubbo.Reference{Version: "1"}, nil, both[:1]},
		"a group":        {dubbo.Reference{Group: "g"}, nil, both[1:]},
		"behind others":  {dubbo.Reference{Version: "1", Group: "g"}, mine, slices.Concat(mine, both)},
		"a call's group": {dubbo.Reference{Version: "1", Group: "g"}, own, slices.Concat(own, both[:1])},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.ref.Caller(client)
			check := func(way string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", way, err)
				}
				if md := <-got; !slices.Equal(md, tc.want) {
					t.Errorf("%s: %v, want %v", way, md, tc.want)
				}
			}
			_, err := c.Call(t.Context(), "call", pool.MessageOf(nil), &kernel.CallOptions{Metadata: tc.md})
			check("Call", err)
			open := &kernel.OpenOptions{Metadata: tc.md}
			_, err = c.Open(t.Context(), "open", open)
			check("Open", err)
			_, err = c.OpenN(t.Context(), "open", open, kernel.StreamOptions{})
			check("OpenN", err)
			if !slices.Equal(open.Metadata, tc.md) || fmt.Sprint(mine[:2]) != fmt.Sprint(metadata.MD{mine[0], {}}) {
				t.Errorf("the options have become %v, %v", open.Metadata, mine[:2])
			}
			if tc.md == nil {
				_, err = c.Call(t.Context(), "call", pool.MessageOf(nil), nil)
				check("Call without options", err)
				_, err = c.Open(t.Context(), "open", nil)
				check("Open without options", err)
			}
			if c.Caps() != client.Caps() {
				t.Error("it is not the client's Caps")
			}
		})
	}
	if c := (dubbo.Reference{ID: "r", Interface: "i"}).Caller(client); c != kernel.Caller(client) {
		t.Error("without a version and a group it is not the Caller itself")
	}
}
