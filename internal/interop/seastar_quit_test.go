package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame/seastar"
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

// A client of Seastar's whose call gives it no source reads nothing of the stream's
// connection before it closes that. If anything has come by then, its system resets the
// connection, and drops what was not sent yet. So the server says nothing until it has the
// client's end. A client that has a source may wait for the end of that first.
func TestSeastarAnUploaderIsToldNothingBeforeItHasEnded(t *testing.T) {
	for name, back := range map[string]bool{"one way": false, "with a source": true} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(_ context.Context, src *intSource) ([]*intSink, error) {
					src.Go(func(ctx context.Context) error {
						for _, err := range src.All(ctx) {
							if err != nil {
								return err
							}
						}
						return nil
					})
					if !back {
						return nil, nil
					}
					out := rpc.MakeSink[int32](src)
					return []*intSink{out}, out.CloseSend()
				}, nil))
				s := h.stream()
				h.answered(h.call(1, s.id))
				if back {
					s.hears(rawEOS)
				}
				for range 100 {
					s.say(rawFrame("1234"))
					s.hears("")
				}
				s.say(rawEOS)
				if !back {
					s.hears(rawEOS)
				}
			})
		})
	}
}

// Who uploads and quits has sent all, and need not wait for a reader that takes its time. One
// that never reads is told in the end, and so is one that waits for more.
func TestSeastarAnUploadIsReadSlowlyToItsEnd(t *testing.T) {
	const messages, size = 60, 10 << 10
	for name, c := range map[string]struct {
		each  time.Duration // between two reads
		sends int
		end   bool // the client's, in order
		fails time.Duration
	}{
		"slowly":          {each: 700 * time.Millisecond, sends: messages, end: true},
		"never":           {each: time.Hour, sends: messages, end: true, fails: time.Minute},
		"what never came": {sends: messages - 1, fails: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
				read := make(chan error, 1)
				ended := make(chan time.Time, 1)
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(_ context.Context, src *messageSource) (struct{}, error) {
					src.Go(func(ctx context.Context) error {
						context.AfterFunc(ctx, func() { ended <- time.Now() })
						for range messages {
							select {
							case <-time.After(c.each):
							case <-ctx.Done():
							}
							m, err := src.Receive(ctx)
							if err != nil {
								read <- err
								return nil
							}
							m.Release()
						}
						_, err := src.Receive(ctx)
						read <- err
						return nil
					})
					return struct{}{}, nil
				}, nil))
				s := h.stream()
				h.answered(h.call(1, s.id))
				go func() {
					for range c.sends {
						_, _ = s.Write([]byte(rawFrame(strings.Repeat("u", size))))
					}
					if c.end {
						_, _ = s.Write([]byte(rawEOS))
						_ = s.Close()
					}
				}()
				synctest.Wait()
				start := time.Now()
				_ = h.Close()
				err := <-read
				if c.fails == 0 {
					isErr(t, "the end", err, io.EOF)
					return
				}
				if d := (<-ended).Sub(start); err == nil || err == io.EOF || d < c.fails || d > c.fails+2*time.Second {
					t.Errorf("the reader has %v, the stream's life has ended after %v, want %v", err, d, c.fails)
				}
			})
		})
	}
}

// hears checks what the server says within a second.
func (h *hand) hears(want string) {
	h.tg.T.Helper()
	_ = h.SetReadDeadline(time.Now().Add(time.Second))
	p := make([]byte, 64)
	if n, _ := io.ReadFull(h, p); string(p[:n]) != want {
		h.tg.T.Errorf("the server says %x, want %x", p[:n], want)
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

// A stream's connection can bring all that it has to bring, and end, before the server begins
// with the call that names it: the call still gets the stream, with what came on it. A stream that
// no call names does not stay for that.
func TestSeastarAnUploadIsThereBeforeItsCall(t *testing.T) {
	for name, after := range map[string]time.Duration{"at once": 0, "a little later": 900 * time.Millisecond, "too late": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(ctx context.Context, src *messageSource) (int32, error) {
					n := int32(0)
					for m, err := range src.All(ctx) {
						if err != nil {
							return 0, err
						}
						m.Release()
						n++
					}
					return n, nil
				}, nil))
				synctest.Wait()
				before := len(tg.Srv.Conns())
				s := h.stream()
				for range 100 {
					s.say(rawFrame("1234"))
				}
				s.say(rawEOS)
				_ = s.Close()
				synctest.Wait()
				time.Sleep(after)
				synctest.Wait()
				if after > time.Second {
					if n := len(tg.Srv.Conns()); n != before {
						t.Errorf("%d connections, want %d: a stream is kept that no call has named", n, before)
					}
					h.failed(h.call(1, s.id), "no such stream")
					return
				}
				h.call(1, s.id)
				if id, text := h.reply(); id < 0 || text != rawNumber(100) {
					t.Errorf("answered %d %q, want a count of 100", id, text)
				}
				synctest.Wait()
				if n := len(tg.Srv.Conns()); n != before {
					t.Errorf("%d connections are left, want %d", n, before)
				}
			})
		})
	}
}
