package strm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sluicerpc/sluice/frame"
)

func TestDetectKnowsTheFirstPacket(t *testing.T) {
	for first, want := range map[string]frame.Verdict{
		"": frame.More, "P": frame.More, "PR": frame.More, "PRP": frame.More, "PRPC": frame.Yes, "PRPC\x00\x00": frame.Yes,
		"PRI * HTTP/2.0": frame.No, "PRQ": frame.No, "SLUICE\r\n": frame.No, "STRM": frame.No, "GET / HTTP": frame.No,
		"prpc": frame.No, "\x16\x03\x01": frame.No, "X": frame.No,
	} {
		if got := (Protocol{}).Detect([]byte(first)); got != want {
			t.Errorf("%q: %d, want %d", first, got, want)
		}
	}
	if (Protocol{}).Name() != "brpc" {
		t.Error("the name is a part of targets")
	}
}

var errRefused = errors.New("not with that token")

// greet runs a server's handshake with what a client sends.
func greet(t *testing.T, in io.Reader, first int, auth func(ctx context.Context, p *frame.Settings) error) (*frame.Greeting, string, error) {
	t.Helper()
	g := &frame.Greeting{First: make([]byte, first), Own: frame.Settings{MaxMessage: testMaxMessage}, Authenticate: auth}
	if _, err := io.ReadFull(in, g.First); err != nil {
		t.Fatal(err)
	}
	c := &noConn{in: in}
	s, err := Protocol{}.Handshake(context.Background(), c, g)
	if (s == nil) != (err != nil) {
		t.Fatalf("%v and %v", s, err)
	}
	return g, c.out.String(), err
}

func TestAServerReadsTheFirstRequestOnlyIfClientsMustAuthenticate(t *testing.T) {
	req := calling(connect(t, true, "secret"), 1, strings.Repeat("long", 10_000))
	for first := 4; first <= frame.SniffLen; first++ {
		g, out, err := greet(t, bytes.NewReader(req), first, nil)
		if err != nil || out != "" || !bytes.Equal(g.Early, req[:first]) {
			t.Fatalf("%d bytes early, %q, %v", len(g.Early), out, err)
		}
		token := ""
		g, out, err = greet(t, iotest.OneByteReader(bytes.NewReader(req)), first, func(_ context.Context, p *frame.Settings) error {
			token = string(p.Token)
			return nil
		})
		if err != nil || out != "" || token != "secret" || string(g.Peer.Token) != "secret" {
			t.Fatalf("token %q, wrote %q, %v", token, out, err)
		}
		if !bytes.HasPrefix(req, g.Early) || len(g.Early) > 200 {
			t.Fatalf("%d bytes early: %q", len(g.Early), g.Early)
		}
	}
}

// Everything that was read belongs to the session, also what came behind the head
// of the first request.
func TestWhatIsReadInTheHandshakeIsNotLost(t *testing.T) {
	c := connect(t, true, "secret")
	in := append(calling(c, 1, "one"), calling(c, 3, "two")...)
	r := bytes.NewReader(in)
	g, _, err := greet(t, r, 4, func(context.Context, *frame.Settings) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	s := &side{Session: connect(t, false, "")}
	s.feed(g.Early)
	rest, _ := io.ReadAll(r)
	s.feed(rest)
	if len(s.events) != 6 || string(s.events[4].payload) != "two" {
		t.Errorf("%s", s.log())
	}
}

func TestARefusedClientGetsAnAnswer(t *testing.T) {
	for _, req := range [][]byte{
		calling(connect(t, true, "wrong"), 1, "x"),
		control(connect(t, true, ""), opening(1, 2)),
	} {
		_, out, err := greet(t, bytes.NewReader(req), 4, func(context.Context, *frame.Settings) error { return errRefused })
		if !errors.Is(err, errRefused) {
			t.Error(err)
		}
		// Plain, also where streams were asked for, as brpc's servers do.
		wrote(t, []byte(out), `PRPC 2={ 1=1004 2="Fail to authenticate" } 4=1`)
		c := &side{Session: connect(t, true, "")}
		if req[headerLen+1] == 0 {
			t.Fatal(req)
		}
		control(c.Session, opening(1, 2))
		c.feed([]byte(out))
		c.expect(t, `reject stream=1 code=UNAUTHENTICATED reason="Fail to authenticate" notProcessed=false`)
		c.empty(t)
	}
}

func TestNothingIsServedBeforeAuthentication(t *testing.T) {
	asked := false
	auth := func(context.Context, *frame.Settings) error {
		asked = true
		return nil
	}
	for name, in := range map[string]string{
		"a stream frame first":  string(appendClose(nil, 1, 1)),
		"an answer":             string(parseShown(t, `PRPC 2={ 1=0 } 4=1`)),
		"a meta without end":    "PRPC\x00\x00\x00\x01\x00\x00\x00\x02\x08",
		"a meta that is long":   "PRPC\x00\x10\x00\x00\x00\x02\x00\x00",
		"a meta that is broken": "PRPC\x00\x00\x00\x03\x00\x00\x00\x03\xff\xff\xff",
		"an empty meta":         "PRPC\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		if _, out, err := greet(t, strings.NewReader(in), 4, auth); !errors.Is(err, errFirst) || out != "" || asked {
			t.Errorf("%s: %v, asked %t, wrote %q", name, err, asked, out)
		}
	}
	req := calling(connect(t, true, "secret"), 1, "x")
	for n := 4; n < len(req)-1; n++ { // the message need not be there
		_, _, err := greet(t, bytes.NewReader(req[:n]), 4, auth)
		if asked {
			break
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	if _, _, err := greet(t, io.MultiReader(strings.NewReader("PRPC"), iotest.ErrReader(io.ErrClosedPipe)), 4, auth); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestAPeerTakesWhatBrpcsProgramsTake(t *testing.T) {
	for _, client := range []bool{true, false} {
		g := &frame.Greeting{Client: client, Own: frame.Settings{MaxMessage: testMaxMessage}}
		if _, err := (Protocol{}).Handshake(context.Background(), nil, g); err != nil {
			t.Fatal(err)
		}
		p := g.Peer
		if p.MaxMessage != 64<<20-64 || p.InitialCredit != 2<<20 || p.ConnCredit != 1<<62 || p.MaxStreams == 0 || p.MaxMetadata == 0 {
			t.Errorf("%+v", p)
		}
		g.Peer = frame.Settings{}
		if _, err := (Protocol{MaxBody: 1 << 20}).Handshake(context.Background(), nil, g); err != nil || g.Peer.MaxMessage != 1<<20-64 {
			t.Errorf("%+v, %v", g.Peer, err)
		}
		for _, n := range []int{-1, 4<<10 - 1, 1 << 31} {
			if _, err := (Protocol{MaxBody: n}).Handshake(context.Background(), nil, g); err == nil {
				t.Errorf("a body of %d bytes is taken", n)
			}
		}
	}
}
