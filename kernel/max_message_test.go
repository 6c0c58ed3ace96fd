package kernel_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// TestMaxMessageAloneIsEnough: who raises the largest message beyond the
// default of another limit need not know of that one.
func TestMaxMessageAloneIsEnough(t *testing.T) {
	const size = 65 << 20
	limits := kernel.Limits{MaxMessage: size}
	srv, client := kerneltest.Start(t, &kernel.ServerOptions{Limits: limits}, &kernel.ClientOptions{Limits: limits})
	a, b := kerneltest.Open(t, srv, client, kernel.StreamOptions{}, kernel.StreamOptions{})
	want := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	if err := a.Send(t.Context(), kernel.CopyMessage(want)); err != nil {
		t.Fatal(err)
	}
	m, err := b.Receive(t.Context())
	if err != nil || !bytes.Equal(m.Bytes(), want) {
		t.Fatalf("received %d bytes of %d, error %v", m.Len(), size, err)
	}
}

// TestALargeCallThatIsRefusedEndsNothingElse: where nobody grants credit, a call that
// is refused may have a whole message on its way, however small the connection's window.
func TestALargeCallThatIsRefusedEndsNothingElse(t *testing.T) {
	limits := kernel.Limits{MaxMessage: 8 << 20, ConnWindow: 1 << 20}
	so := &kernel.ServerOptions{Limits: limits}
	co := &kernel.ClientOptions{Limits: limits, ConnType: kernel.ConnSingle}
	for _, k := range []struct {
		name, unknown, known string
		world                func(*testing.T, *kernel.ServerOptions, *kernel.ClientOptions) *world
	}{
		{"brpc", "unknown", "known", overBrpc},
		{"seastar", "#9", "#1", overSeastar},
	} {
		t.Run(k.name, func(t *testing.T) {
			w := k.world(t, so, co)
			w.srv.Handle(k.known, echo)
			w.call(k.known, "before", "before")
			large := sized(limits.MaxMessage, 1)
			defer large.Release()
			for range 3 {
				_, err := w.client.Call(w.ctx, k.unknown, large, nil)
				var se *kernel.StreamError
				if !errors.As(err, &se) || se.Code != kernel.CodeUnimplemented {
					t.Fatalf("a large call to a method that is not there: %v", err)
				}
			}
			w.call(k.known, "after", "after")
			w.eventually("the connection to be counted", func() bool { return w.srv.Stats().Accepted > 0 })
			if n := w.srv.Stats().Accepted; n != 1 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}
