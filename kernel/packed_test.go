package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/internal/testkit/capwire"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// compressing connects a server and a client over HTTP/2's set of capabilities.
func compressing(t *testing.T) *world {
	t.Helper()
	p := capwire.HTTP2()
	return newWorld(t, kerneltest.Start,
		&kernel.ServerOptions{Protocols: []frame.Protocol{p}}, &kernel.ClientOptions{Protocols: []frame.Protocol{p}})
}

func packedMessage(t *testing.T, p []byte) pool.Message {
	t.Helper()
	m, err := capwire.Packed(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Messages travel compressed, and their readers get what they hold, whichever way they
// read: also as an open's request.
func TestCompressedMessagesAreUnpackedByTheirReader(t *testing.T) {
	for name, read := range map[string]func(ctx context.Context, s *kernel.Stream) []pool.Message{
		"Receive": func(ctx context.Context, s *kernel.Stream) (ms []pool.Message) {
			for m, err := range s.All(ctx) {
				if err != nil {
					t.Error(err)
				}
				ms = append(ms, m)
			}
			return ms
		},
		"ReceiveBatch": func(ctx context.Context, s *kernel.Stream) (ms []pool.Message) {
			for {
				ps, err := s.ReceiveBatch(ctx)
				if err != nil {
					isErr(t, "ReceiveBatch", err, io.EOF)
					return ms
				}
				for _, p := range ps {
					ms = append(ms, pool.Copy(p))
				}
			}
		},
		"In": func(_ context.Context, s *kernel.Stream) (ms []pool.Message) {
			for m := range s.In() {
				ms = append(ms, m)
			}
			return ms
		},
		"Batches": func(_ context.Context, s *kernel.Stream) (ms []pool.Message) {
			for b := range s.Batches() {
				for i := range b.Len() {
					ms = append(ms, b.Keep(i))
				}
				b.Release()
			}
			return ms
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := compressing(t)
			want := [][]byte{bytes.Repeat([]byte("all the same "), 100_000), []byte("plain"), make([]byte, 300<<10)}
			got := make(chan []byte, len(want)+1)
			w.Srv.HandleOffer("m", func(ctx context.Context, o *kernel.Offer) error {
				req := testkit.RequestOf(t, o)
				got <- bytes.Clone(req.Bytes())
				req.Release()
				s, err := o.Accept(pool.Message{}, nil)
				if err != nil {
					return err
				}
				for _, m := range read(ctx, s) {
					got <- bytes.Clone(m.Bytes())
					m.Release()
				}
				return s.Close(ctx)
			})
			s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Request: packedMessage(t, want[0])})
			ok(t, err)
			ok(t, s.Send(w.Ctx, packedMessage(t, want[0])))
			ok(t, s.Send(w.Ctx, pool.Copy(want[1])))
			ok(t, s.Send(w.Ctx, packedMessage(t, want[2])))
			ok(t, s.Close(w.Ctx))
			for i, want := range append([][]byte{want[0]}, want...) {
				if p := <-got; !bytes.Equal(p, want) {
					t.Errorf("message %d: %d bytes, want %d", i, len(p), len(want))
				}
			}
		})
	}
}

// A small message that holds far too much ends its stream and nothing else, and is never
// all there.
func TestACompressionBombEndsItsStream(t *testing.T) {
	w := compressing(t)
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	other, there := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	ok(t, a.Send(w.Ctx, packedMessage(t, make([]byte, 20<<20))))
	ok(t, a.CloseSend())
	if m, err := b.Receive(w.Ctx); err == nil {
		t.Errorf("a message of %d bytes", m.Len())
		m.Release()
	} else if !errors.Is(err, &status.StreamError{Code: status.TooLarge}) || errors.Is(err, io.EOF) {
		t.Errorf("the reader is told %v", err)
	}
	<-a.Done()
	w.Send(other, "as before")
	if m, err := there.Receive(w.Ctx); err != nil || string(m.Bytes()) != "as before" {
		t.Errorf("the other stream: %v", err)
	} else {
		m.Release()
	}
}

// A request that can't be unpacked is none: no handler runs.
func TestAnUnreadableRequestReachesNoHandler(t *testing.T) {
	w := compressing(t)
	ran := make(chan string, 2)
	w.Srv.Handle("stream", func(context.Context, *kernel.Stream) error { ran <- "stream"; return nil })
	w.Srv.HandleOffer("offer", func(context.Context, *kernel.Offer) error { ran <- "offer"; return nil })
	for _, method := range []string{"stream", "offer"} {
		s, err := w.Client.Open(w.Ctx, method, &kernel.OpenOptions{Request: packedMessage(t, make([]byte, 20<<20))})
		ok(t, err)
		if _, _, err := s.Accepted(w.Ctx); !errors.Is(err, &status.StreamError{Code: status.TooLarge}) {
			t.Errorf("%s: %v", method, err)
		}
		<-s.Done()
	}
	if len(ran) > 0 {
		t.Errorf("the handler of %q ran", <-ran)
	}
}
