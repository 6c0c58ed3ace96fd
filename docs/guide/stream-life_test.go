package guide_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// upload sends lines and returns what the server says about them.
func upload(ctx context.Context, c *kernel.Client, lines []string) (string, error) {
	s, err := c.Open(ctx, "files/put", &kernel.OpenOptions{
		Metadata: metadata.MD{{Key: "name", Value: "notes.txt"}},
	})
	if err != nil {
		return "", err // there is no connection
	}
	for _, line := range lines { // before the server has answered
		if err := s.Send(ctx, pool.MessageOf([]byte(line))); err != nil {
			break // Receive says why
		}
	}
	_ = s.CloseSend() // the receiving half goes on
	m, err := s.Receive(ctx)
	if err != nil {
		return "", err
	}
	defer m.Release()
	return string(m.Bytes()), s.Close(ctx)
}

func put(ctx context.Context, s *kernel.Stream) error {
	name := s.Metadata().Get("name")
	if name == "" {
		return &status.HandlerError{Code: status.InvalidArgument, Reason: "a file needs a name"}
	}
	size := 0
	for m, err := range s.All(ctx) { // until the client's CloseSend
		if err != nil {
			return err
		}
		size += m.Len()
		m.Release()
	}
	return s.Send(ctx, pool.MessageOf(fmt.Appendf(nil, "%s has %d bytes", name, size)))
}

// refuseLarge looks at an open before it accepts it.
func refuseLarge(ctx context.Context, o *kernel.Offer) error {
	if o.Metadata().Get("size") == "large" {
		o.Reject(&status.HandlerError{Code: status.ResourceExhausted, Reason: "the disk is full"})
		return nil
	}
	s, err := o.Accept(pool.Message{}, nil)
	if err != nil {
		return err
	}
	if err := put(ctx, s); err != nil {
		return err // ends the stream with its code
	}
	return s.CloseSend() // after nil the stream stays open
}

// withNews has the server open a stream to each client that connects.
func withNews() *kernel.ServerOptions {
	return &kernel.ServerOptions{OnConn: func(c *kernel.Conn) {
		s, err := c.Open(context.Background(), "news", nil)
		if err != nil {
			return
		}
		_ = s.Send(context.Background(), pool.MessageOf([]byte("welcome")))
		_ = s.Close(context.Background())
	}}
}

// readsNews has the client serve it.
func readsNews(read func(news string)) *kernel.ClientOptions {
	var handlers kernel.Handlers
	handlers.Handle("news", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			read(string(m.Bytes()))
			m.Release()
		}
		return nil
	})
	return &kernel.ClientOptions{Handlers: &handlers}
}

func howItEnded(s *kernel.Stream, err error) string {
	var se *status.StreamError
	switch {
	case errors.Is(err, io.EOF):
		return "the peer ended its half cleanly"
	case errors.Is(err, kernel.ErrStopped):
		return "the peer reads no more; nothing has failed"
	case errors.Is(err, kernel.ErrClosed):
		return "this side has ended the half"
	case errors.As(err, &se) && se.Code == status.ConnectionLost:
		return "the connection was lost"
	case errors.As(err, &se) && se.NotProcessed:
		return "no handler saw it"
	case errors.As(err, &se) && se.Remote:
		return "the peer ended it: " + se.Code.String()
	case errors.As(err, &se):
		return "this side ended it: " + se.Code.String()
	}
	return "still open: the wait has ended, not the stream"
}

func TestUpload(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("files/put", put)
		got, err := upload(w.Ctx, w.Client, []string{"one", "two", "three"})
		if err != nil || got != "notes.txt has 11 bytes" {
			t.Errorf("%q, %v", got, err)
		}
		s := w.Open("files/put")
		w.WantErr(s, status.InvalidArgument)
	})
}

func TestRefuseLarge(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.HandleOffer("files/put", refuseLarge)
		for size, want := range map[string]status.Code{"large": status.ResourceExhausted, "small": status.InvalidArgument} {
			s, err := w.Client.Open(w.Ctx, "files/put", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "size", Value: size}}})
			testkit.OK(t, err)
			se := w.WantErr(s, want)
			if se.Refused != (size == "large") {
				t.Errorf("%s: %v", size, se)
			}
		}
	})
}

func TestHowItEnded(t *testing.T) {
	ends := map[string]func(a, b *kernel.Stream){
		"the peer ended its half cleanly":                func(_, b *kernel.Stream) { _ = b.CloseSend() },
		"this side has ended the half":                   func(a, _ *kernel.Stream) { a.CloseReceive(status.OK) },
		"the connection was lost":                        func(_, b *kernel.Stream) { _ = b.Conn().Close() },
		"the peer ended it: ABORTED":                     func(_, b *kernel.Stream) { b.Abort(status.Aborted, "") },
		"this side ended it: ABORTED":                    func(a, _ *kernel.Stream) { a.Abort(status.Aborted, "") },
		"still open: the wait has ended, not the stream": func(_, _ *kernel.Stream) {},
	}
	for want, end := range ends {
		recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
			w.Loose = true
			end(a, b)
			w.Quiesce()
			ctx, cancel := context.WithCancel(w.Ctx)
			cancel()
			if _, err := a.Receive(ctx); howItEnded(a, err) != want {
				t.Errorf("%v is %q, want %q", err, howItEnded(a, err), want)
			}
		})
	}
	recipe(t, kernel.StreamOptions{}, kernel.StreamOptions{}, func(t *testing.T, w *world, a, b *kernel.Stream) {
		b.CloseReceive(status.OK)
		w.Quiesce()
		if got := howItEnded(a, sendOrRelease(w.Ctx, a, text("late"))); got != "the peer reads no more; nothing has failed" {
			t.Error(got)
		}
	})
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		s := w.Open("no such method")
		_, err := s.Receive(w.Ctx)
		if got := howItEnded(s, err); got != "no handler saw it" {
			t.Error(got)
		}
	})
}

func TestServersOpenStreamsToo(t *testing.T) {
	got := make(chan string, 1)
	inBubble(t, withNews(), readsNews(func(news string) { got <- news }), func(t *testing.T, w *world) {
		if news := <-got; news != "welcome" {
			t.Errorf("%q", news)
		}
	})
}
