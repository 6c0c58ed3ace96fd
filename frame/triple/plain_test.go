package triple

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A talker is a client of a server's session: it says what it likes, and keeps what is written.
type talker struct {
	t   *testing.T
	s   *Session
	now time.Time
	out bytes.Buffer
}

func newTalker(t *testing.T) *talker {
	return &talker{t: t, s: aServer(t), now: time.Unix(1_000_000, 0)}
}

// say has the session read p, and write what that asks for.
func (k *talker) say(p ...[]byte) {
	k.t.Helper()
	in := bytes.Join(p, nil)
	var f frame.Frame
	for {
		n, err := k.s.Next(in, &f)
		if err != nil {
			k.t.Fatal(err)
		}
		in = in[n:]
		switch f.Kind {
		case frame.None:
			return
		case frame.Reply:
			k.write(func(o *frame.Out) { k.s.Control(o, &f) })
		}
	}
}

func (k *talker) write(f func(o *frame.Out)) {
	o := frame.Out{Clock: func() time.Time { return k.now }}
	f(&o)
	k.s.Flush(&o)
	for _, p := range o.Vec(nil) {
		k.out.Write(p)
	}
}

// pass lets time go by.
func (k *talker) pass(d time.Duration) {
	k.now = k.now.Add(d)
	if at := k.s.Wake(); !at.IsZero() && !k.now.Before(at) {
		k.write(k.s.Tick)
	}
}

// wrote returns the frames that were written since the last call, in short.
func (k *talker) wrote() string {
	k.t.Helper()
	var all []string
	for k.out.Len() > 0 {
		h := k.out.Next(headerLen)
		p := k.out.Next(int(binary.BigEndian.Uint32(h) >> 8))
		if h[3] == tWindowUpdate {
			continue // what is dropped gives its credit back
		}
		text := [...]string{"DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS"}[h[3]]
		switch h[3] {
		case tData:
			text += " " + strings.ReplaceAll(string(p), "\n", "|")
		case tRST:
			text += " " + http2Error(binary.BigEndian.Uint32(p)).String()
		}
		if h[3] <= tHeaders && h[4]&fEndStream != 0 {
			text += " END"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func windowUpdate(id, n uint32) []byte { return appendWindowUpdate(nil, id, n) }

func oneSetting(id uint16, v uint32) []byte {
	b := appendSetting(appendHeader(nil, 6, tSettings, 0, 0), id, v)
	return b
}

var aGet = []string{":method", "GET", ":scheme", "http", ":path", "/"}

func TestPlainAnswer(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(k *talker)
		want string
	}{
		{"whole request", func(k *talker) { k.say(request(1, fEndStream, aGet...)) },
			"HEADERS, DATA gRPC takes POST only| END"},
		{"another content type", func(k *talker) {
			k.say(request(1, fEndStream, ":method", "POST", ":scheme", "http", ":path", "/", "content-type", "text/plain"))
		}, "HEADERS, DATA gRPC takes application/grpc only| END"},
		{"the request's end comes later", func(k *talker) {
			k.say(request(1, 0, aGet...))
			k.say(dataFrame(1, fEndStream, 10))
		}, "HEADERS, DATA gRPC takes POST only| END"},
		{"the request's end does not come", func(k *talker) {
			k.say(request(1, 0, aGet...))
			k.pass(plainWait)
		}, "HEADERS, DATA gRPC takes POST only| END, RST_STREAM NO_ERROR"},
		{"not before it is due", func(k *talker) {
			k.say(request(1, 0, aGet...))
			k.pass(plainWait - 1)
		}, ""},
		{"trailers", func(k *talker) {
			k.say(request(1, 0, aGet...), request(1, fEndStream, "x", "y"))
		}, "HEADERS, DATA gRPC takes POST only| END"},
		{"a small window", func(k *talker) {
			k.say(oneSetting(setInitialWindow, 5), request(1, fEndStream, aGet...))
			k.say(windowUpdate(1, 6))
			k.say(oneSetting(setInitialWindow, 12))
			k.say(windowUpdate(1, 100))
		}, "SETTINGS, HEADERS, DATA gRPC , DATA takes , SETTINGS, DATA POST on, DATA ly| END"},
		{"a window below nothing", func(k *talker) {
			k.say(oneSetting(setInitialWindow, 5), request(1, fEndStream, aGet...))
			k.say(oneSetting(setInitialWindow, 0), windowUpdate(1, 5))
			k.say(windowUpdate(1, 1))
		}, "SETTINGS, HEADERS, DATA gRPC , SETTINGS, DATA t"},
		{"a window of nothing, until the connection ends", func(k *talker) {
			k.say(oneSetting(setInitialWindow, 0), request(1, fEndStream, aGet...))
			k.pass(time.Hour)
		}, "SETTINGS, HEADERS"},
		{"wrong content-length", func(k *talker) {
			k.say(request(1, 0, append(aGet, "content-length", "1")...), dataFrame(1, fEndStream, 4))
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"headers amid the request", func(k *talker) { k.say(request(1, 0, aGet...), request(1, 0, "x", "y")) },
			"RST_STREAM PROTOCOL_ERROR"},
		{"pseudo-headers in trailers", func(k *talker) { k.say(request(1, 0, aGet...), request(1, fEndStream, ":method", "GET")) },
			"RST_STREAM PROTOCOL_ERROR"},
		{"credit of nothing", func(k *talker) { k.say(request(1, 0, aGet...), windowUpdate(1, 0)) },
			"RST_STREAM PROTOCOL_ERROR"},
		{"too much credit", func(k *talker) { k.say(request(1, 0, aGet...), windowUpdate(1, maxWindow)) },
			"RST_STREAM FLOW_CONTROL_ERROR"},
		{"reset", func(k *talker) {
			k.say(request(1, 0, aGet...), append(appendHeader(nil, 4, tRST, 0, 1), 0, 0, 0, byte(eCancel)))
			k.pass(time.Hour)
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalker(t)
			tc.do(k)
			if got := k.wrote(); got != tc.want {
				t.Errorf("what was written is %q, not %q", got, tc.want)
			}
		})
	}
}

// Bodies take a part of the connection's window that the kernel does not know of, and no more
// until the client grants it again.
func TestPlainAnswersKeepToTheConnectionsWindow(t *testing.T) {
	k := newTalker(t)
	const body = len("gRPC takes POST only\n")
	id := uint32(1)
	for ; k.s.plains.room() >= int64(body); id += 2 {
		k.say(request(id, fEndStream, aGet...))
	}
	k.wrote()
	left := k.s.plains.room()
	k.say(request(id, fEndStream, aGet...))
	if got, want := k.wrote(), "HEADERS, DATA "+"gRPC takes POST only"[:left]; left > 0 && got != want || k.s.plains.room() != 0 {
		t.Fatalf("with a window of %d bytes there was %q, and %d bytes are left", left, got, k.s.plains.room())
	}
	before := k.s.in.connSum
	k.say(windowUpdate(0, 100))
	if got := k.s.in.connSum - before; got != 0 {
		t.Errorf("the kernel has %d bytes of the 100 that were missing", got)
	}
	if got := k.wrote(); !strings.HasSuffix(got, "| END") {
		t.Errorf("with credit there is %q", got)
	}
	k.say(windowUpdate(0, 1<<20))
	if got, want := k.s.in.connSum-before, uint64(1<<20+100-plainReserve)-uint64(k.s.plains.used.Load()-plainReserve); got != want {
		t.Errorf("the kernel has %d bytes of the next credit, not %d", got, want)
	}
	if got := k.s.plains.room(); got != plainReserve {
		t.Errorf("the reserve is %d bytes", got)
	}
}

// As many requests wait for their answers as there may be streams.
func TestPlainAnswersAreBounded(t *testing.T) {
	k := newTalker(t)
	k.say(oneSetting(setInitialWindow, 0))
	for i := range uint32(100) { // of aServer's settings
		k.say(request(2*i+1, fEndStream, aGet...))
	}
	k.wrote()
	k.say(request(201, fEndStream, aGet...))
	if got := k.wrote(); got != "RST_STREAM REFUSED_STREAM" {
		t.Errorf("one request more gets %q", got)
	}
	k.say(append(appendHeader(nil, 4, tRST, 0, 1), 0, 0, 0, byte(eCancel)))
	k.say(request(203, fEndStream, aGet...))
	if got := k.wrote(); got != "HEADERS" {
		t.Errorf("when one has gone the next gets %q", got)
	}
}
