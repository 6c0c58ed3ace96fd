package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A hand is a Seastar client's connection, whose bytes a test writes and reads
// itself, in a bubble.
type hand struct {
	net.Conn
	tg *target
	id string // of the connection
	n  uint64 // calls made
}

// seastarTarget is a server in memory that speaks Seastar's wire.
func seastarTarget(t *testing.T, l kernel.Limits, p *seastar.Protocol) *target {
	t.Helper()
	return newTarget(t, true, kernel.ServerOptions{Protocols: []frame.Protocol{native.Protocol{}, p}, Limits: l})
}

func (tg *target) hand(features ...any) *hand {
	tg.T.Helper()
	h := &hand{Conn: tg.Connect(), tg: tg}
	tg.T.Cleanup(func() { _ = h.Close() })
	h.say(string(rawHello(features...)))
	h.id = readRawHello(tg.T, h)[rawConnectionID]
	return h
}

// stream is a stream's connection that belongs to h.
func (h *hand) stream() *hand {
	h.tg.T.Helper()
	return h.tg.hand(rawStreamParent, h.id)
}

func (h *hand) say(p string) {
	h.tg.T.Helper()
	if _, err := h.Write([]byte(p)); err != nil {
		h.tg.T.Fatal(err)
	}
}

func rawNumber(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

// rawFrame is one value of a stream.
func rawFrame(p string) string { return rawNumber(uint32(len(p))) + p }

var rawEOS = rawNumber(0xffffffff)

// call makes a call, and returns its number.
func (h *hand) call(verb uint64, args string) uint64 {
	h.tg.T.Helper()
	h.n++
	h.say(rawID(verb) + rawID(h.n) + rawFrame(args))
	return h.n
}

// reply reads an answer: that to call n, or, of -n, an exception's text.
func (h *hand) reply() (int64, string) {
	h.tg.T.Helper()
	_ = h.SetReadDeadline(time.Now().Add(time.Minute))
	head := make([]byte, 12)
	if _, err := io.ReadFull(h, head); err != nil {
		h.tg.T.Fatalf("no reply: %v", err)
	}
	p := make([]byte, binary.LittleEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(h, p); err != nil {
		h.tg.T.Fatal(err)
	}
	id := int64(binary.LittleEndian.Uint64(head))
	if id < 0 {
		p = p[min(8, len(p)):] // its kind and length
	}
	return id, string(p)
}

// answered checks that call n succeeded, failed that it did not.
func (h *hand) answered(n uint64) {
	h.tg.T.Helper()
	if id, text := h.reply(); id != int64(n) {
		h.tg.T.Fatalf("the reply to call %d is %d, %q", n, id, text)
	}
}

func (h *hand) failed(n uint64, want string) {
	h.tg.T.Helper()
	if id, text := h.reply(); id != -int64(n) || !strings.Contains(text, want) {
		h.tg.T.Fatalf("the reply to call %d is %d, %q, want %q", n, id, text, want)
	}
}

// reads what comes until the connection ends, or for a minute.
func (h *hand) rest() (string, error) {
	_ = h.SetReadDeadline(time.Now().Add(time.Minute))
	p, err := io.ReadAll(h)
	return string(p), err
}

// closed checks that the server ends the connection within a second, and says nothing.
func (h *hand) closed(what string) {
	h.tg.T.Helper()
	start := time.Now()
	p, err := h.rest()
	if p != "" || err != nil || time.Since(start) > time.Second {
		h.tg.T.Errorf("%s: its connection says %x and ends after %v, %v", what, p, time.Since(start), err)
	}
}

// inSeastarBubble runs f with a client's connection of calls.
func inSeastarBubble(t *testing.T, l kernel.Limits, p *seastar.Protocol, f func(t *testing.T, tg *target, h *hand)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tg := seastarTarget(t, l, p)
		f(t, tg, tg.hand())
	})
}

// A call that fails takes the streams along that it was given, though their client
// leaves them open.
func TestSeastarACallThatFailsEndsItsStreams(t *testing.T) {
	type request struct {
		S *intSource
		N int64
	}
	type several struct{ A, B, C *intSource }
	unknown := rawID(4711 << 16)
	for name, c := range map[string]struct {
		verb    uint64
		streams int
		args    func(ids []string) string
		text    string
	}{
		"an error":                  {1, 1, func(ids []string) string { return ids[0] + rawID(1) }, "ABORTED: no"},
		"a panic":                   {2, 1, func(ids []string) string { return ids[0] + rawID(1) }, "panicked"},
		"arguments that are short":  {1, 1, func(ids []string) string { return ids[0] + "1234" }, "8 bytes are due"},
		"an unknown stream between": {3, 2, func(ids []string) string { return ids[0] + unknown + ids[1] }, "no such stream"},
		"one stream twice":          {3, 2, func(ids []string) string { return ids[0] + ids[0] + ids[1] }, "no such stream"},
		"a list that is short":      {4, 2, func(ids []string) string { return rawNumber(2) + ids[0] + ids[1] + "1234567" }, "8 bytes are due"},
	} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
				never := errors.New("no call succeeds")
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(context.Context, request) (bool, error) {
					return true, &status.HandlerError{Code: status.Aborted, Reason: "no"}
				}, nil))
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(2), func(context.Context, request) (bool, error) { panic("no") }, nil))
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(3), func(context.Context, several) (bool, error) { return true, never }, nil))
				ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(4), func(context.Context, struct {
					S []*intSource
					N int64
				}) (bool, error) {
					return true, never
				}, nil))
				var ids []string
				var ss []*hand
				for range c.streams {
					s := h.stream()
					s.say(rawFrame("1234") + rawFrame("5678"))
					ids, ss = append(ids, s.id), append(ss, s)
				}
				h.failed(h.call(c.verb, c.args(ids)), c.text)
				for i, s := range ss {
					s.closed("stream " + decimal(i))
				}
			})
		})
	}
}

// Streams that last are no handlers that calls have to wait for. But functions that do
// not return when their streams end can't become ever more.
func TestSeastarCallsDoNotWaitForStreams(t *testing.T) {
	const streams = 3
	l := targetLimits()
	l.MaxStreams = streams
	inSeastarBubble(t, l, &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
		release := make(chan struct{})
		running := 0
		ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(_ context.Context, src *intSource) (bool, error) {
			running++ // one call after the other
			src.Go(func(context.Context) error {
				<-release
				return nil
			})
			return true, nil
		}, nil))
		ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(2), func(_ context.Context, n int32) (int32, error) { return n, nil }, nil))
		var last *hand
		for range streams {
			last = h.stream()
			h.answered(h.call(1, last.id))
		}
		for range 3 * streams {
			h.answered(h.call(2, "1234"))
		}
		for {
			_ = last.Close()
			synctest.Wait()
			last = h.stream()
			h.call(1, last.id)
			if id, text := h.reply(); id < 0 {
				if running < 2*streams || !strings.Contains(text, "too many") {
					t.Errorf("after %d: %s", running, text)
				}
				break
			}
			if running > 10*streams {
				t.Fatalf("%d functions run", running)
			}
		}
		h.answered(h.call(2, "1234"))
		close(release)
		synctest.Wait()
		h.answered(h.call(1, h.stream().id))
	})
}

// More streams than a call can pass are refused before there is memory for them.
func TestSeastarACallNamesABoundedNumberOfStreams(t *testing.T) {
	l := targetLimits()
	l.MaxMessage = 8 << 20
	inSeastarBubble(t, l, &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
		ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(context.Context, []*intSource) (bool, error) { return true, nil }, nil))
		const n = 500_000
		req := []byte(rawID(1) + rawID(1) + rawFrame(rawNumber(n)+strings.Repeat(rawID(1<<16), n)))
		held := allocated(func() {
			ok(t, second(h.Write(req)))
			h.failed(1, "too many references")
		})
		if held > uint64(6*len(req)) { // itself, and what it grew from
			t.Errorf("%d bytes are allocated for a call of %d that is refused", held, len(req))
		}
	})
}

// A sum is what came through a stream, and how that ended.
type sum struct {
	of  int32
	err error
}

// registerSum has calls of verb 1 add what comes through a stream, slowly, and send the
// sum. It returns the sums, and the handler's end of each stream.
func registerSum(t *testing.T, tg *target, pause time.Duration) (sums chan sum, sources chan *intSource) {
	t.Helper()
	sums, sources = make(chan sum, 8), make(chan *intSource, 8)
	ok(t, rpc.HandleUnary(tg.Srv, kernel.Verb(1), func(_ context.Context, src *intSource) (*intSink, error) {
		out := rpc.MakeSink[int32](src)
		src.Go(func(ctx context.Context) error {
			var s sum
			for n, err := range src.All(ctx) {
				if err != nil {
					s.err = err
					break
				}
				s.of += n
				time.Sleep(pause)
			}
			sums <- s
			return errors.Join(s.err, out.Send(ctx, s.of))
		})
		sources <- src
		return out, nil
	}, nil))
	return sums, sources
}

// When both directions have ended the server waits for a Seastar peer's FIN: that would
// lose the end of its stream if it saw the connection close first.
func TestSeastarAStreamsConnectionLingers(t *testing.T) {
	const linger = 3 * time.Second
	for name, c := range map[string]struct {
		asked, after time.Duration
		fin          bool
	}{
		"the peer's FIN": {linger, linger / 2, true},
		"no FIN":         {linger, linger, false},
		"a slow reader":  {0, 50 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{Linger: c.asked}, func(t *testing.T, tg *target, h *hand) {
				sums, sources := registerSum(t, tg, 0)
				s := h.stream()
				h.answered(h.call(1, s.id))
				src := <-sources
				s.say(rawFrame(rawNumber(20)) + rawFrame(rawNumber(22)) + rawEOS)
				ok(t, (<-sums).err)
				want := rawFrame(rawNumber(42)) + rawEOS
				got := make([]byte, len(want))
				if _, err := io.ReadFull(s, got); err != nil || string(got) != want {
					t.Fatalf("%x, %v, want %x", got, err, want)
				}
				synctest.Wait()
				start := time.Now()
				if c.fin {
					time.AfterFunc(c.after, func() { _ = s.Close() })
				}
				<-src.Stream().Conn().Done()
				if d := time.Since(start); d < c.after || d > c.after+time.Second/2 {
					t.Errorf("the connection ends after %v, want %v", d, c.after)
				}
				var ce *status.ConnError
				if err := src.Stream().Conn().Err(); !errors.As(err, &ce) || ce.Code != status.OK {
					t.Errorf("it ends with %v", err)
				}
				ok(t, src.Err())
				ok(t, src.Stream().Err())
			})
		})
	}
}

// The end of a stream is what its sender says, and not its connection's: what has come
// is delivered in any case, however slowly it is read.
func TestSeastarASlowReaderHasAllThatCame(t *testing.T) {
	const values = 40_000 // more than waits unread before reading stops
	for name, end := range map[string]struct {
		say     string
		half    bool
		inOrder bool
	}{
		"EOS and FIN": {rawEOS, false, true}, "EOS and half a FIN": {rawEOS, true, true},
		"FIN": {"", false, false}, "half a FIN": {"", true, false}, "FIN within a value": {rawNumber(4) + "12", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
				sums, sources := registerSum(t, tg, time.Millisecond)
				s := h.stream()
				h.answered(h.call(1, s.id))
				s.say(strings.Repeat(rawFrame(rawNumber(1)), values) + end.say)
				if end.half {
					_ = s.Conn.(interface{ CloseWrite() error }).CloseWrite()
				} else {
					_ = s.Close()
				}
				got, src := <-sums, <-sources
				if got.of != values || (got.err == nil) != end.inOrder || (src.Err() == nil) != end.inOrder {
					t.Errorf("%d values of %d, then %v, %v", got.of, values, got.err, src.Err())
				}
			})
		})
	}
}

// A connection whose next request finds no memory is not read, until a call of another
// connection is answered.
func TestSeastarConnectionsShareTheirMemory(t *testing.T) {
	inSeastarBubble(t, targetLimits(), &seastar.Protocol{MaxMemory: 1000}, func(t *testing.T, tg *target, a *hand) {
		b := tg.hand()
		begun, release := make(chan string, 8), make(chan struct{})
		tg.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			begun <- string(m.Bytes()[:1])
			<-release
			return s.Send(ctx, m)
		})
		first := a.call(1, strings.Repeat("a", 600))
		synctest.Wait()
		second := b.call(1, strings.Repeat("b", 600))
		third := b.call(1, "c")
		synctest.Wait()
		if n := len(begun); n != 1 || <-begun != "a" {
			t.Fatalf("%d calls have begun", n)
		}
		release <- struct{}{}
		a.answered(first)
		synctest.Wait()
		if n := len(begun); n != 2 {
			t.Errorf("%d calls have begun when there was memory", n)
		}
		close(release)
		seen := map[int64]bool{}
		for range 2 {
			id, _ := b.reply()
			seen[id] = true
		}
		if !seen[int64(second)] || !seen[int64(third)] {
			t.Errorf("replies to %v", seen)
		}
	})
}

// A handler may end the connection that its call came by: nothing is answered then.
func TestSeastarAHandlerMayEndItsConnection(t *testing.T) {
	inSeastarBubble(t, targetLimits(), &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
		ended := make(chan error, 8)
		tg.Srv.Handle("#1", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			if string(m.Bytes()) == "end it" {
				_ = s.Conn().Close()
				ended <- s.Send(ctx, text("too late"))
			}
			return s.Send(ctx, m)
		})
		h.answered(h.call(1, "first"))
		s := h.stream()
		h.call(1, "end it")
		h.closed("the calls")
		s.closed("a stream that belongs to them")
		wantCode(t, <-ended, status.ConnectionLost)
		if _, err := h.Write([]byte(rawID(1) + rawID(3) + rawFrame("third"))); err == nil {
			t.Error("a third call is taken")
		}
	})
}

// A call whose client still connects ends when its caller gives it up.
func TestSeastarACallEndsWhileItsClientConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := conn.Pipe()
		defer far.Close()
		client := testkit.Must[*kernel.Client](t)(kernel.NewClient("seastar://memory:0", &kernel.ClientOptions{
			Protocols: []frame.Protocol{&seastar.Protocol{}},
			Limits:    kernel.Limits{Handshake: time.Minute},
			Dial:      func(context.Context, string, string) (net.Conn, error) { return near, nil },
		}))
		call := func(ctx context.Context, o *kernel.CallOptions) (time.Duration, error) {
			start := time.Now()
			m := text("x")
			_, err := client.Call(ctx, "#1", m, o)
			m.Release()
			return time.Since(start), err
		}
		d, err := call(t.Context(), &kernel.CallOptions{Timeout: time.Second})
		isErr(t, "a call with a timeout", err, context.DeadlineExceeded)
		if d != time.Second {
			t.Errorf("it ended after %v", d)
		}
		why := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(why) })
		d, err = call(ctx, nil)
		isErr(t, "a call that is cancelled", err, why)
		if d != 2*time.Second {
			t.Errorf("it ended after %v", d)
		}
		readRawHello(t, far) // the server is back: what was given up was never written
		ok(t, second(far.Write(rawHello(rawConnectionID, rawID(1<<16)))))
		_, err = call(t.Context(), &kernel.CallOptions{Timeout: time.Second})
		wantCode(t, err, status.DeadlineExceeded)
		ok(t, client.Close())
		rest := testkit.Must[[]byte](t)(io.ReadAll(far))
		if n := strings.Count(string(rest), rawFrame("x")); n != 1 {
			t.Errorf("%d requests were written: %x", n, rest)
		}
	})
}

// A handler knows who its caller asks to be isolated as.
func TestSeastarHandlersSeeTheCookie(t *testing.T) {
	co := &kernel.ClientOptions{Protocols: []frame.Protocol{&seastar.Protocol{Cookie: []byte("gold")}}}
	w := overSeastar(t, nil, co)
	ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(1), func(ctx context.Context, src *intSource) (string, error) {
		defer src.Abort(status.Cancelled, "not needed")
		call := kernel.FromContext(ctx).Conn().Peer().Token
		return string(call) + " " + string(src.Stream().Conn().Peer().Token), nil
	}, nil))
	got := testkit.Must[string](t)(rpc.Call[string, *intSink](w.Ctx, w.Client, kernel.Verb(1), newSink(t, w), nil))
	if got != "gold gold" {
		t.Errorf("the call's and the stream's cookie: %q", got)
	}
}
