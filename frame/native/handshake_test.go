package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/status"
)

// A side is one side of a handshake that was played through.
type side struct {
	sess *Session
	err  error
	sent []byte
	g    *frame.Greeting
}

// versions are the lowest and the highest that a side speaks; zeros: the default.
type versions [2]uint64

// play has one side shake hands with a peer that sends in, and then nothing.
func play(v versions, client, checksum bool, in []byte, next func() int) side {
	c := &script{in: in, next: next}
	g := greeting()
	g.Client, g.Own.Checksum, g.Own.MinVersion, g.Own.MaxVersion = client, checksum, v[0], v[1]
	sess, err := Protocol{}.Handshake(context.Background(), c, g)
	s, _ := sess.(*Session)
	return side{s, err, c.out.Bytes(), g}
}

// meet has a client and a server shake hands.
func meet(client, server versions, checksum bool) (c, s side) {
	opening := play(client, true, checksum, nil, whole).sent
	s = play(server, false, checksum, opening, whole)
	c = play(client, true, checksum, s.sent, whole)
	return c, s
}

func TestTheHighestCommonVersionIsUsed(t *testing.T) {
	for _, c := range []struct {
		client, server versions
		version        uint64 // 0: none
		reason         string
	}{
		{versions{}, versions{}, 1, ""},
		{versions{}, versions{1, 2}, 1, ""},
		{versions{1, 2}, versions{}, 1, ""},
		{versions{1, 2}, versions{1, 2}, 2, ""},
		{versions{1, 3}, versions{2, 5}, 3, ""},
		{versions{2, 5}, versions{1, 3}, 3, ""},
		{versions{2, 2}, versions{1, 9}, 2, ""},
		{versions{1, 1 << 63}, versions{1 << 62, 1<<63 + 1}, 1 << 63, ""},
		{versions{3, 4}, versions{}, 0, "no common version: the client speaks 3 to 4, the server 1 to 1"},
		{versions{}, versions{2, 3}, 0, "no common version: the client speaks 1 to 1, the server 2 to 3"},
	} {
		for _, checksum := range []bool{false, true} {
			client, server := meet(c.client, c.server, checksum)
			name := fmt.Sprintf("%+v and %+v, checksum=%t", c.client, c.server, checksum)
			if c.version > 0 {
				if client.err != nil || server.err != nil {
					t.Errorf("%s: %v, %v", name, client.err, server.err)
				} else if client.sess.Version() != c.version || server.sess.Version() != c.version {
					t.Errorf("%s: %d and %d, want %d", name, client.sess.Version(), server.sess.Version(), c.version)
				}
				continue
			}
			var no *frame.Refused
			if codeOf(server.err) != status.Version || !strings.Contains(server.err.Error(), c.reason) {
				t.Errorf("%s: the server says %v", name, server.err)
			}
			if !errors.As(client.err, &no) || no.Code != status.Version || no.Reason != c.reason {
				t.Errorf("%s: the client got %v", name, client.err)
			}
		}
	}
}

// A client that finds no common version, or a setting out of range, tells the server why
// it closes.
func TestAClientTellsWhyItCloses(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		server := settingsOf(greeting(), checksum)
		for _, c := range []struct {
			name   string
			change func(s *frame.Settings)
			code   status.Code
		}{
			{"versions", func(s *frame.Settings) { s.MinVersion, s.MaxVersion = 3, 4 }, status.Version},
			{"credit", func(s *frame.Settings) { s.ConnCredit = 0 }, status.FlowControl},
		} {
			own := server
			c.change(&own)
			got := play(versions{}, true, checksum, greet(&frame.Frame{Kind: frame.Hello, Settings: own}), whole)
			if codeOf(got.err) != c.code {
				t.Errorf("%s, checksum=%t: %v", c.name, checksum, got.err)
			}
			opening := play(versions{}, true, checksum, nil, whole).sent
			_, r := pair(checksum)
			es, err := read(r, got.sent[len(opening):], whole)
			if err != nil || len(es) != 1 || !strings.HasPrefix(es[0].head, fmt.Sprintf("goaway stream=0 last=0 code=%v", c.code)) {
				t.Errorf("%s, checksum=%t: the server got %v, %v", c.name, checksum, es, err)
			}
		}
	}
}

// settingsOf is what a side writes with greeting's settings.
func settingsOf(g *frame.Greeting, checksum bool) frame.Settings {
	s := g.Own
	s.MinVersion, s.MaxVersion, s.Checksum = Version, Version, checksum
	return s
}

func TestAHelloWithoutASetting(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(s *frame.Settings)
		code  status.Code
	}{
		{"nothing left out", func(*frame.Settings) {}, status.OK},
		{"versions", func(s *frame.Settings) { s.MinVersion, s.MaxVersion = 0, 0 }, status.Protocol},
		{"checksum", func(s *frame.Settings) { s.Checksum = false }, status.OK},
		{"largest fragment", func(s *frame.Settings) { s.MaxFragment = 0 }, status.Protocol},
		{"largest message", func(s *frame.Settings) { s.MaxMessage = 0 }, status.Protocol},
		{"streams", func(s *frame.Settings) { s.MaxStreams = 0 }, status.OK},
		{"metadata", func(s *frame.Settings) { s.MaxMetadata = 0 }, status.OK},
		{"initial credit", func(s *frame.Settings) { s.InitialCredit = 0 }, status.FlowControl},
		{"connection credit", func(s *frame.Settings) { s.ConnCredit = 0 }, status.FlowControl},
		{"token", func(s *frame.Settings) { s.Token = nil }, status.OK},
		{"compression", func(s *frame.Settings) { s.Compression = 0 }, status.OK},
	} {
		s := settingsOf(greeting(), true)
		s.Token, s.Compression = []byte("key"), compress.All
		c.leave(&s)
		// A setting that is 0 and one that is missing are the same.
		b := withoutZeros(appendSettings(nil, &s))
		hello := append([]byte(Magic), sealed(append(le64(header(len(b), tHello, 0)), b...))...)
		for _, client := range []bool{false, true} {
			if got := play(versions{}, client, true, hello, whole); codeOf(got.err) != c.code {
				t.Errorf("%s, client=%t: %v, want %v", c.name, client, got.err, c.code)
			}
		}
	}
}

func le64(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// withoutZeros leaves out the settings that are 0.
func withoutZeros(b []byte) (kept []byte) {
	for len(b) > 0 {
		n := 2 + int(b[1])
		if !bytes.Equal(b[2:n], make([]byte, n-2)) {
			kept = append(kept, b[:n]...)
		}
		b = b[n:]
	}
	return kept
}

// What a later version must not change, byte by byte: a side's start, and the answer
// of a server that speaks none of a client's versions.
func TestTheStartIsTheSameInEveryVersion(t *testing.T) {
	var out strings.Builder
	for _, p := range []versions{{}, {7, 9}} {
		for _, checksum := range []bool{false, true} {
			opening := play(p, true, checksum, nil, whole).sent
			fmt.Fprintf(&out, "%+v, checksum=%t\n%s", p, checksum, hexLines(opening))
			server := play(versions{1, 2}, false, checksum, opening, whole)
			fmt.Fprintf(&out, "versions 1 to 2 answer, error %v\n%s\n", server.err, hexLines(server.sent))
		}
	}
	golden(t, "start.txt", out.String())
}

// What a client sends before it knows the version is its Hello, and a server's answer
// one frame.
func TestHandshakesSendOneFrame(t *testing.T) {
	for _, p := range []versions{{}, {1, 3}, {2, 3}} {
		for _, checksum := range []bool{false, true} {
			client, server := meet(p, versions{1, 2}, checksum)
			for name, sent := range map[string][]byte{"client": client.sent, "server": server.sent} {
				_, r := pair(true)
				es, err := read(r, bytes.TrimPrefix(sent, []byte(Magic)), whole)
				if err != nil || len(es) != 1 || len(sent) < len(Magic)+recordLen+headerLen {
					t.Errorf("%+v, checksum=%t: the %s sent %v, %v", p, checksum, name, es, err)
				}
			}
		}
	}
}

// Every bit of either side's start is flipped, one at a time. The reader notices at once,
// with or without records to follow: it does not wait for more, and it accepts no setting
// from it.
func TestEveryFlippedBitOfAHelloIsNoticed(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		for _, token := range []int{0, 3, 40_000} { // the last has a record that is read in pieces
			own := settingsOf(greeting(), checksum)
			own.Token = bytes.Repeat([]byte("key"), token/3)
			for _, first := range []frame.Frame{
				{Kind: frame.Hello, Settings: own},
				{Kind: frame.GoAway, Code: status.Unauthenticated, Reason: "not you"},
			} {
				b := greet(&first)
				for i := range b {
					if i > 200 && i%997 != 0 {
						continue // of a long token some bytes are enough
					}
					for bit := range 8 {
						b[i] ^= 1 << bit
						if err := noticed(b, i, checksum); err != nil {
							t.Fatalf("kind %d, checksum=%t, %d bytes of a token: byte %d, bit %d: %v", first.Kind, checksum, token, i, bit, err)
						}
						b[i] ^= 1 << bit
					}
				}
			}
		}
	}
}

// noticed plays a handshake whose peer starts with b, of which byte i is wrong.
func noticed(b []byte, i int, checksum bool) error {
	for _, client := range []bool{false, true} {
		for _, cut := range []func() int{whole, cutter(uint64(i))} {
			got := play(versions{}, client, checksum, b, cut)
			switch code := codeOf(got.err); {
			case i < len(Magic):
				if !errors.Is(got.err, ErrNotSluice) || !client && len(got.sent) > 0 {
					return fmt.Errorf("client=%t: %v", client, got.err)
				}
			case code != status.Checksum && code != status.Protocol && code != status.FrameSize:
				return fmt.Errorf("client=%t: %v", client, got.err)
			}
			if got.g.Peer.MaxFragment != 0 {
				return fmt.Errorf("client=%t: settings were taken: %+v", client, got.g.Peer)
			}
		}
	}
	return nil
}
