package triple

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// aServer is a server's session whose client has just said hello.
func aServer(t *testing.T) *Session {
	t.Helper()
	hello := appendHeader([]byte(preface), 0, tSettings, 0, 0)
	rw := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(hello), io.Discard}
	own := frame.Settings{MaxStreams: 100, MaxMessage: 1 << 20, MaxMetadata: 16 << 10, InitialCredit: defaultWindow, ConnCredit: defaultWindow}
	s, err := Protocol{}.Handshake(context.Background(), rw, &frame.Greeting{Own: own})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Session)
}

// feed has s read p, and write what it asks for. It returns the kinds of all other frames.
func feed(t *testing.T, s *Session, p []byte) (kinds []frame.Kind, err error) {
	t.Helper()
	var f frame.Frame
	for {
		n, err := s.Next(p, &f)
		if err != nil {
			return kinds, err
		}
		p = p[n:]
		switch f.Kind {
		case frame.None:
			return kinds, nil
		case frame.Reply:
			var o frame.Out
			s.Control(&o, &f)
			s.Flush(&o)
		default:
			kinds = append(kinds, f.Kind)
		}
	}
}

// request is a HEADERS with fields, key and value in turn.
func request(id uint32, flags byte, fields ...string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to a buffer
	}
	return append(appendHeader(nil, block.Len(), tHeaders, flags|fEndHeaders, id), block.Bytes()...)
}

func dataFrame(id uint32, flags byte, n int) []byte {
	return append(appendHeader(nil, n, tData, flags, id), make([]byte, n)...)
}

// A client whose request is answered at once, because it is no call of gRPC's, has sent its
// body by then: the rest of the connection never hears of that stream, and the body's credit
// goes back.
func TestBodyOfARefusedRequest(t *testing.T) {
	s := aServer(t)
	refused := [][]string{
		{":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "text/plain"},
		{":method", "GET", ":scheme", "http", ":path", "/a/b"},
		{":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc", "grpc-timeout", "soon"},
		{":method", "POST", ":scheme", "http", ":path", "", "content-type", "application/grpc"},
	}
	sent := uint64(0)
	for i, fields := range refused {
		id := uint32(2*i + 1)
		p := request(id, 0, fields...)
		p = append(p, dataFrame(id, 0, 100)...)
		p = append(p, dataFrame(id, fEndStream, 50)...)
		sent += 150
		kinds, err := feed(t, s, p)
		if err != nil || len(kinds) > 0 {
			t.Fatalf("%q: frames %v, error %v", fields, kinds, err)
		}
		if got := s.refund.Load(); got != sent {
			t.Errorf("%q: %d bytes of credit have come back, not %d", fields, got, sent)
		}
	}
	ok := request(9, fEndStream, ":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc")
	if kinds, err := feed(t, s, ok); err != nil || len(kinds) != 2 || kinds[0] != frame.Open || kinds[1] != frame.EOS {
		t.Errorf("the next request: frames %v, error %v", kinds, err)
	}
}

// More than its window a client can't have sent before it reads the answer.
func TestBodyOfARefusedRequestIsBounded(t *testing.T) {
	s := aServer(t)
	if _, err := feed(t, s, request(1, 0, ":method", "GET", ":scheme", "http", ":path", "/")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := feed(t, s, dataFrame(1, 0, defaultWindow/4)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := feed(t, s, dataFrame(1, 0, 100)); err == nil {
		t.Error("a body longer than the stream's window was taken")
	}
}

// The padding of a stream that is gone takes credit of the connection too.
func TestPaddingOfAStreamThatIsGone(t *testing.T) {
	s := aServer(t)
	open := request(1, 0, ":method", "POST", ":scheme", "http", ":path", "/a/b", "content-type", "application/grpc")
	if _, err := feed(t, s, open); err != nil {
		t.Fatal(err)
	}
	var o frame.Out
	s.Control(&o, &frame.Frame{Kind: frame.Reset, Stream: 1})
	padded := append(appendHeader(nil, 21, tData, fPadded, 1), 10)
	if _, err := feed(t, s, append(padded, make([]byte, 20)...)); err != nil {
		t.Fatal(err)
	}
	if got := s.refund.Load(); got != 21 {
		t.Errorf("%d bytes of credit have come back of 21", got)
	}
}

// What was not handed on of the last stream comes back at its end, whoever ends it first.
func TestCreditOfTheLastStream(t *testing.T) {
	k := start(t, true)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	k.do(&frame.Frame{Kind: frame.EOS, Stream: 1})
	k.out()
	k.in(k.headers(1, 0, ":status", "200", "content-type", "application/grpc"), data(1, fPadded, "\x03\x00\x00\x00"), k.headers(1, fEndStream, "grpc-status", "0"))
	k.writes("WINDOW 0 +4")

	// The writer ends a stream while the reader is in the middle of its data.
	k = start(t, false)
	k.in(k.request(1, 0))
	st := k.s.streams.find(1)
	k.do(&frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled})
	k.out()
	k.s.hold(st, prefixLen)
	k.in(nil)
	k.writes("WINDOW 0 +5")
}

// Data of a stream that the peer has reset is not written, and uses nothing of the connection's
// credit.
func TestDataOfAStreamThatThePeerHasReset(t *testing.T) {
	k := start(t, false)
	k.in(k.request(1, 0), appendRST(nil, 1, eCancel))
	told := func(want string) {
		t.Helper()
		if got := k.told(); got != want {
			t.Errorf("the kernel is told %q, want %q", got, want)
		}
	}
	const first = defaultWindow - plainReserve
	k.send(1, "abc")
	told(fmt.Sprintf("CREDIT 0 value %d", first+prefixLen+3))
	m := pool.Copy([]byte("abcdef"))
	k.s.Fragment(&k.o, 1, m, 0, 7)
	told(fmt.Sprintf("CREDIT 0 value %d", first+prefixLen+3+7))
	k.s.Fragment(&k.o, 1, m, 7, 4)
	told(fmt.Sprintf("CREDIT 0 value %d", first+prefixLen+3+prefixLen+6))
	k.wants(fmt.Sprintf("CREDIT 0 value %d", first+prefixLen+3+prefixLen+6+100), appendWindowUpdate(nil, 0, 100))
	k.writes("")
}
