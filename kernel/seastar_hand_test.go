package kernel_test

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

	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/kernel"
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
	return newTarget(t, true, kernel.ServerOptions{Protocols: []kernel.Protocol{native.Protocol{}, p}, Limits: l})
}

func (tg *target) hand(features ...any) *hand {
	tg.t.Helper()
	h := &hand{Conn: tg.connect(), tg: tg}
	tg.t.Cleanup(func() { _ = h.Close() })
	h.say(string(rawHello(features...)))
	h.id = readRawHello(tg.t, h)[rawConnectionID]
	return h
}

// stream is a stream's connection that belongs to h.
func (h *hand) stream() *hand {
	h.tg.t.Helper()
	return h.tg.hand(rawStreamParent, h.id)
}

func (h *hand) say(p string) {
	h.tg.t.Helper()
	if _, err := h.Write([]byte(p)); err != nil {
		h.tg.t.Fatal(err)
	}
}

func rawNumber(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

// rawFrame is one value of a stream.
func rawFrame(p string) string { return rawNumber(uint32(len(p))) + p }

var rawEOS = rawNumber(0xffffffff)

// call makes a call, and returns its number.
func (h *hand) call(verb uint64, args string) uint64 {
	h.tg.t.Helper()
	h.n++
	h.say(rawID(verb) + rawID(h.n) + rawFrame(args))
	return h.n
}

// reply reads an answer: that to call n, or, of -n, an exception's text.
func (h *hand) reply() (int64, string) {
	h.tg.t.Helper()
	_ = h.SetReadDeadline(time.Now().Add(time.Minute))
	head := make([]byte, 12)
	if _, err := io.ReadFull(h, head); err != nil {
		h.tg.t.Fatalf("no reply: %v", err)
	}
	p := make([]byte, binary.LittleEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(h, p); err != nil {
		h.tg.t.Fatal(err)
	}
	id := int64(binary.LittleEndian.Uint64(head))
	if id < 0 {
		p = p[min(8, len(p)):] // its kind and length
	}
	return id, string(p)
}

// answered checks that call n succeeded, failed that it did not.
func (h *hand) answered(n uint64) {
	h.tg.t.Helper()
	if id, text := h.reply(); id != int64(n) {
		h.tg.t.Fatalf("the reply to call %d is %d, %q", n, id, text)
	}
}

func (h *hand) failed(n uint64, want string) {
	h.tg.t.Helper()
	if id, text := h.reply(); id != -int64(n) || !strings.Contains(text, want) {
		h.tg.t.Fatalf("the reply to call %d is %d, %q, want %q", n, id, text, want)
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
	h.tg.t.Helper()
	start := time.Now()
	p, err := h.rest()
	if p != "" || err != nil || time.Since(start) > time.Second {
		h.tg.t.Errorf("%s: its connection says %x and ends after %v, %v", what, p, time.Since(start), err)
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
				ok(t, kernel.Register(tg.srv, kernel.Verb(1), func(context.Context, request) (bool, error) {
					return true, &kernel.HandlerError{Code: kernel.CodeAborted, Reason: "no"}
				}, nil))
				ok(t, kernel.Register(tg.srv, kernel.Verb(2), func(context.Context, request) (bool, error) { panic("no") }, nil))
				ok(t, kernel.Register(tg.srv, kernel.Verb(3), func(context.Context, several) (bool, error) { return true, never }, nil))
				ok(t, kernel.Register(tg.srv, kernel.Verb(4), func(context.Context, struct {
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
		ok(t, kernel.Register(tg.srv, kernel.Verb(1), func(_ context.Context, src *intSource) (bool, error) {
			running++ // one call after the other
			src.Go(func(context.Context) error {
				<-release
				return nil
			})
			return true, nil
		}, nil))
		ok(t, kernel.Register(tg.srv, kernel.Verb(2), func(_ context.Context, n int32) (int32, error) { return n, nil }, nil))
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
func TestSeastarACallNamesSoManyStreams(t *testing.T) {
	l := targetLimits()
	l.MaxMessage = 8 << 20
	inSeastarBubble(t, l, &seastar.Protocol{}, func(t *testing.T, tg *target, h *hand) {
		ok(t, kernel.Register(tg.srv, kernel.Verb(1), func(context.Context, []*intSource) (bool, error) { return true, nil }, nil))
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
