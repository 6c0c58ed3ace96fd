package guide_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

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

// A way to end a stream, and what the page says of it.
type way struct {
	name  string
	end   func(ctx context.Context, cancel func(), s *kernel.Stream) error
	all   bool  // what this side has sent is delivered
	stay  bool  // what this side has not read can still be read
	peer  error // what the peer's reader gets after the messages; nil: nothing yet
	stops bool  // the peer's SendDone is closed
	ends  bool  // the peer's context ends
}

var ways = []way{
	{"CloseSend", func(_ context.Context, _ func(), s *kernel.Stream) error { return s.CloseSend() },
		true, true, io.EOF, false, false},
	{"CloseReceive", func(_ context.Context, _ func(), s *kernel.Stream) error { s.CloseReceive(status.Aborted); return nil },
		true, false, nil, true, false},
	{"Close", func(ctx context.Context, _ func(), s *kernel.Stream) error { return s.Close(ctx) },
		true, false, io.EOF, true, false},
	{"Abort", func(_ context.Context, _ func(), s *kernel.Stream) error { s.Abort(status.Aborted, "why"); return nil },
		false, true, &status.StreamError{Code: status.Aborted}, true, true},
	{"the context of Open", func(_ context.Context, cancel func(), _ *kernel.Stream) error { cancel(); return nil },
		false, true, &status.StreamError{Code: status.Cancelled}, true, true},
	{"Conn.Close", func(_ context.Context, _ func(), s *kernel.Stream) error { return s.Conn().Close() },
		false, true, &status.StreamError{Code: status.ConnectionLost}, true, true},
}

// A handler that runs sees what the page says of each way in which its client can end the
// stream. More was sent than there is credit for, so something is not written.
func TestWaysToEndAStream(t *testing.T) {
	for _, way := range ways {
		inBubble(t, nil, nil, func(t *testing.T, w *world) {
			w.Loose = true
			var peer *kernel.Stream
			release := make(chan struct{})
			w.Srv.Handle("ends", func(ctx context.Context, s *kernel.Stream) error {
				w.Send(s, "unread")
				peer = s
				<-release
				return nil
			})
			ctx, cancel := context.WithCancel(w.Ctx)
			s, err := w.Client.Open(ctx, "ends", nil)
			testkit.OK(t, err)
			_, _, err = s.Accepted(w.Ctx)
			testkit.OK(t, err)
			n := 0
			for ; sendOrReleaseNow(s, sized(100, 1)); n++ {
			}
			w.Quiesce()
			ended := make(chan error, 1)
			go func() { ended <- way.end(w.Ctx, cancel, s) }()
			w.Quiesce()
			if got := len(ended) == 0; got != (way.name == "Close") {
				t.Errorf("%s waits: %v", way.name, got)
			}
			if got := isClosed(peer.SendDone()); got != way.stops {
				t.Errorf("%s: SendDone is closed: %v", way.name, got)
			}
			if got := peer.Context().Err() != nil; got != way.ends {
				t.Errorf("%s: the handler's context has ended: %v", way.name, got)
			}
			if got, err := readRest(peer); (got == n) != way.all || !errors.Is(err, way.peer) {
				t.Errorf("%s: %d of %d messages, then %v", way.name, got, n, err)
			}
			if got, _ := readRest(s); (got == 1) != way.stay {
				t.Errorf("%s: %d unread messages could be read", way.name, got)
			}
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
			close(release)
			cancel()
			s.Abort(status.Cancelled, "test over")
			testkit.Drain(peer)
			testkit.Drain(s)
		})
	}
}

func sendOrReleaseNow(s *kernel.Stream, m pool.Message) bool {
	if err := s.TrySend(m); err != nil {
		m.Release()
		return false
	}
	return true
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// readRest reads until there is an error; nil stands for that of waiting too long.
func readRest(s *kernel.Stream) (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		m, err := s.Receive(ctx)
		if err != nil && ctx.Err() != nil {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m.Release()
		n++
	}
}
