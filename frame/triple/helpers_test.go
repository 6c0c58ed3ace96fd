package triple

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A wire is what a handshake reads, and what it has written.
type wire struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.out.Write(p) }

// A talk is a conversation with a session: the test plays the peer, and the kernel.
type talk struct {
	t    testing.TB
	s    *Session
	o    frame.Out
	cut  int // bytes of each call of Next; 0: all there is
	enc  *hpack.Encoder
	ebuf bytes.Buffer
	dec  *hpack.Decoder
	err  error

	hello []byte // what the session has begun with
}

// own is what the session under test announces.
var own = frame.Settings{MaxStreams: 100, MaxMetadata: 1000, InitialCredit: 1000, ConnCredit: 100_000, MaxMessage: 1 << 20}

// start makes a talk with a peer that begins with SETTINGS of these values, id and value in
// turn.
func start(t testing.TB, client bool, settings ...uint32) *talk {
	t.Helper()
	return startWith(t, Protocol{}, client, settings...)
}

// startWith is start with a protocol's options.
func startWith(t testing.TB, p Protocol, client bool, settings ...uint32) *talk {
	t.Helper()
	k := &talk{t: t}
	w := &wire{}
	var in []byte
	g := &frame.Greeting{Client: client, Authority: "host:1", Own: own}
	if !client {
		in = append(in, preface...)
		g.First, in = in[:10], in[10:]
	}
	w.in = bytes.NewReader(append(slices.Clone(in), settingsFrame(settings...)...))
	s, err := p.Handshake(context.Background(), w, g)
	if err != nil {
		t.Fatal(err)
	}
	k.s, k.hello = s.(*Session), w.out.Bytes()
	k.enc = hpack.NewEncoder(&k.ebuf)
	k.dec = hpack.NewDecoder(4096, nil)
	return k
}

func settingsFrame(settings ...uint32) []byte {
	b := appendHeader(nil, len(settings)/2*6, tSettings, 0, 0)
	for i := 0; i < len(settings); i += 2 {
		b = appendSetting(b, uint16(settings[i]), settings[i+1])
	}
	return b
}

// block encodes fields, name and value in turn.
func (k *talk) block(fields ...string) []byte {
	k.ebuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = k.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(k.ebuf.Bytes())
}

func (k *talk) headers(id uint32, flags byte, fields ...string) []byte {
	b := k.block(fields...)
	return append(appendHeader(nil, len(b), tHeaders, flags|fEndHeaders, id), b...)
}

// request is what a client begins a stream with; more fields are behind gRPC's.
func (k *talk) request(id uint32, flags byte, more ...string) []byte {
	return k.headers(id, flags, append([]string{
		":method", "POST", ":scheme", "http", ":path", "/p.S/M", ":authority", "a", "content-type", "application/grpc", "te", "trailers",
	}, more...)...)
}

func data(id uint32, flags byte, p string) []byte {
	return append(appendHeader(nil, len(p), tData, flags, id), p...)
}

// msg is a message with its prefix.
func msg(p string) string { return string(appendPrefix(nil, len(p), false)) + p }

// in has the session read frames, and returns the events, a line each.
func (k *talk) in(frames ...[]byte) string {
	k.t.Helper()
	p := slices.Concat(frames...)
	var events []string
	a := pool.GetArena()
	defer pool.PutArena(a)
	f := frame.GetFrame(frame.None)
	for k.err == nil {
		part := p
		if k.cut > 0 {
			part = p[:min(k.cut, len(p))]
		}
		n, err := k.s.Next(part, f)
		p = p[n:]
		if k.err = err; err != nil {
			events = append(events, "error: "+err.Error())
			break
		}
		if f.Kind == frame.None {
			if len(p) == 0 {
				break
			}
			continue
		}
		events = append(events, describe(f))
		if f.Kind == frame.Reply {
			k.s.Control(&k.o, f)
		}
		if f.Kind == frame.Data && f.First && f.Last && k.cut == 0 {
			var q pool.Queue
			n := k.s.Run(p, f.Stream, a, &q)
			p = p[n:]
			for m, ok := q.Pop(); ok; m, ok = q.Pop() {
				events = append(events, fmt.Sprintf("DATA %d %q of %d cost %d", f.Stream, m.Bytes(), m.Len(), pool.Cost(m)))
				m.Release()
			}
		}
	}
	return strings.Join(events, "\n")
}

// describe is an event as the tests write it.
func describe(f *frame.Frame) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", f.Kind, f.Stream)
	switch f.Kind {
	case frame.Open:
		fmt.Fprintf(&b, " %s credit %d", f.Method, f.Grants[0].Credit)
		if f.Deadline > 0 {
			fmt.Fprintf(&b, " within %v", f.Deadline)
		}
	case frame.Accept:
		fmt.Fprintf(&b, " credit %d", f.Grants[0].Credit)
	case frame.Data:
		fmt.Fprintf(&b, " %q of %d cost %d", f.Payload, f.Total, f.Cost)
		if !f.First {
			b.WriteString(" on")
		}
		if !f.Last {
			b.WriteString(" more")
		}
	case frame.Reply:
		fmt.Fprintf(&b, " %d", f.Value)
		return b.String()
	case frame.NewSettings:
		fmt.Fprintf(&b, " streams %d credit %d", f.Settings.MaxStreams, f.Settings.InitialCredit)
	default:
		if f.Value != 0 {
			fmt.Fprintf(&b, " value %d", f.Value)
		}
	}
	if f.Code != 0 {
		fmt.Fprintf(&b, " %v", f.Code)
	}
	if f.Reason != "" {
		fmt.Fprintf(&b, " %q", f.Reason)
	}
	if f.NotProcessed {
		b.WriteString(" not processed")
	}
	if f.Omitted > 0 {
		fmt.Fprintf(&b, " omitted %d", f.Omitted)
	}
	if f.Kind == frame.Data { // the fields of what came before are still there
		return b.String()
	}
	for _, m := range f.Metadata {
		fmt.Fprintf(&b, " %s=%q", m.Key, m.Value)
	}
	return b.String()
}

// wants checks that the session makes these events of frames.
func (k *talk) wants(want string, frames ...[]byte) {
	k.t.Helper()
	if got := k.in(frames...); got != want {
		k.t.Errorf("events\n%s\nwant\n%s", got, want)
	}
}

// do has the kernel's frame written.
func (k *talk) do(f *frame.Frame) { k.s.Control(&k.o, f) }

// send has whole messages written.
func (k *talk) send(id uint64, ms ...string) {
	var q pool.Queue
	for _, m := range ms {
		p := pool.Copy([]byte(m))
		pool.SetCost(p, prefixLen+len(m))
		q.Push(p)
	}
	k.s.Messages(&k.o, id, q)
}

// out is what was written since, a line a frame.
func (k *talk) out() string {
	k.t.Helper()
	return strings.Join(k.frames(k.written()), "\n")
}

// frames describes encoded frames.
func (k *talk) frames(p []byte) (lines []string) {
	k.t.Helper()
	for len(p) > 0 {
		if len(p) < headerLen {
			k.t.Fatalf("half a header: %x", p)
		}
		n := int(binary.BigEndian.Uint32(p) >> 8)
		typ, flags, id := p[3], p[4], binary.BigEndian.Uint32(p[5:])
		b := p[headerLen : headerLen+n]
		p = p[headerLen+n:]
		line := fmt.Sprintf("%d %d", typ, id)
		switch typ {
		case tData:
			line = fmt.Sprintf("DATA %d %q", id, b)
			if flags&fEndStream != 0 {
				line += " end"
			}
		case tHeaders, tContinuation:
			line = fmt.Sprintf("HEADERS %d", id)
			fs, err := k.dec.DecodeFull(b)
			if err != nil {
				k.t.Fatal(err)
			}
			for _, f := range fs {
				line += fmt.Sprintf(" %s=%s", f.Name, f.Value)
			}
			if flags&fEndStream != 0 {
				line += " end"
			}
		case tRST:
			line = fmt.Sprintf("RST %d %v", id, http2Error(binary.BigEndian.Uint32(b)))
		case tWindowUpdate:
			line = fmt.Sprintf("WINDOW %d +%d", id, binary.BigEndian.Uint32(b))
		case tSettings:
			line = fmt.Sprintf("SETTINGS ack %v", flags&fAck != 0)
		case tPing:
			line = fmt.Sprintf("PING %d ack %v", binary.BigEndian.Uint64(b), flags&fAck != 0)
		case tGoAway:
			line = fmt.Sprintf("GOAWAY %d %v %s", binary.BigEndian.Uint32(b), http2Error(binary.BigEndian.Uint32(b[4:])), b[8:])
		}
		lines = append(lines, line)
	}
	return lines
}

// writes checks what was written since.
func (k *talk) writes(want string) {
	k.t.Helper()
	if got := k.out(); got != want {
		k.t.Errorf("wrote\n%s\nwant\n%s", got, want)
	}
}

var _ io.ReadWriter = (*wire)(nil)
