package kernel_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Metadata, texts and requests of the largest size there is, all at once, fit
// their frames; what is larger fails where it is set, and affects nothing else.
func TestTheLargestFramesFit(t *testing.T) {
	const most = 48 << 10
	limits := kernel.Limits{MaxMetadata: most}
	so, co := &kernel.ServerOptions{Limits: limits}, &kernel.ClientOptions{Limits: limits}
	inBubble(t, so, co, func(t *testing.T, w *world) {
		w.Srv.HandleOffer("group", func(ctx context.Context, o *kernel.Offer) error {
			if err := o.SetHeader(md(most + 1)); !errors.Is(err, kernel.ErrMetadataTooLarge) {
				t.Errorf("a header too large: %v", err)
			}
			if err := o.SetHeader(md(most)); err != nil {
				t.Error(err)
			}
			ss, err := o.AcceptAll(sized(16<<10, 'r'), nil)
			if err != nil {
				return err
			}
			testkit.RequestOf(t, o).Release()
			for _, s := range ss {
				if err := s.SetTrailer(md(most + 1)); !errors.Is(err, kernel.ErrMetadataTooLarge) {
					t.Errorf("a trailer too large: %v", err)
				}
				if err := s.SetTrailer(md(most)); err != nil {
					t.Error(err)
				}
			}
			return &status.HandlerError{Code: status.Aborted, Reason: strings.Repeat("why ", 100_000)}
		})
		if _, err := w.Client.Open(w.Ctx, "group", &kernel.OpenOptions{Metadata: md(most)}); !errors.Is(err, kernel.ErrMetadataTooLarge) {
			t.Errorf("metadata too large beside the method: %v", err)
		}
		each := make([]kernel.StreamOptions, 256)
		ss, err := w.Client.OpenN(w.Ctx, "group", &kernel.OpenOptions{Request: sized(16<<10, 'q'), Metadata: md(most - len("group"))}, each...)
		if err != nil {
			t.Fatal(err)
		}
		reply, header, err := ss[0].Accepted(w.Ctx)
		if err != nil || reply.Len() != 16<<10 || header.Size() != most {
			t.Fatalf("accepted with %d bytes, a header of %d, %v", reply.Len(), header.Size(), err)
		}
		reply.Release()
		for _, s := range ss {
			w.WantErr(s, status.Aborted)
			if n := s.Trailer().Size(); n != most {
				t.Fatalf("a trailer of %d bytes", n)
			}
			_ = s.CloseSend()
		}
	})
}

// A key that the wire can't carry fails where it is set, and affects nothing else: the peer
// would end the connection.
func TestIllegalMetadataKeysFailWhereTheyAreSet(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		check := func(where string, set func(metadata.MD) error) {
			for _, key := range []string{"", "Upper", "a b", "ключ", strings.Repeat("k", 256)} {
				if err := set(metadata.MD{{Key: key, Value: "v"}}); !errors.Is(err, kernel.ErrMetadataKey) {
					t.Errorf("%s, key %.10q: %v", where, key, err)
				}
			}
			if err := set(metadata.MD{{Key: "a-key", Value: "v"}}); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
		w.Srv.HandleOffer("offer", func(_ context.Context, o *kernel.Offer) error {
			check("Offer.SetHeader", o.SetHeader)
			s, err := o.Accept(pool.Message{}, nil)
			if err != nil {
				return err
			}
			return s.Close(w.Ctx)
		})
		w.Srv.Handle("handler", func(_ context.Context, s *kernel.Stream) error {
			check("SetHeader", s.SetHeader)
			check("SetTrailer", s.SetTrailer)
			return nil
		})
		for _, method := range []string{"offer", "handler"} {
			check("Open", func(md metadata.MD) error {
				s, err := w.Client.Open(w.Ctx, method, &kernel.OpenOptions{Metadata: md})
				if err != nil {
					return err
				}
				if _, header, err := s.Accepted(w.Ctx); err != nil || header.Get("a-key") != "v" {
					t.Errorf("%s: header %v, %v", method, header, err)
				}
				w.WantEOF(s)
				return s.Close(w.Ctx)
			})
		}
	})
}
