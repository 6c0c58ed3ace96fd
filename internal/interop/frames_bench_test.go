//go:build unix

package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// BenchmarkFrames measures what frames cost that carry no message: what the guards against abuse
// count, and what they don't. Each connection is sent as many as the guards allow, in one write,
// and one frame that is answered behind them. cpu-ns/op is the CPU of both sides for one of them,
// without that of connecting, and the median of the connections: -benchtime 27000x makes 30 with most frames. "alone" means that each is answered before the next is sent, which
// costs a read and a write on either side.
func BenchmarkFrames(b *testing.B) {
	for _, row := range []struct {
		name  string
		speak func(b *testing.B, addr string) speaker
		what  string
		most  int // a connection
		alone bool
	}{
		{"native/ping", speakNative, "ping", 900, false},
		{"native/ping, alone", speakNative, "ping", 100, true},
		{"native/grant", speakNative, "grant", 900, false},
		{"native/report", speakNative, "report", 900, false},
		{"native/for a stream that is over", speakNative, "useless", 900, false},
		{"native/open and reset", speakNative, "reset", 900, false},
		{"native/open that is refused", speakNative, "refused", 900, false},
		{"gRPC/ping", speakHTTP2, "ping", 900, false},
		{"gRPC/ping, alone", speakHTTP2, "ping", 100, true},
		{"gRPC/grant", speakHTTP2, "grant", 900, false},
		{"gRPC/settings", speakHTTP2, "settings", 90, false},
		{"gRPC/settings, 1,000 streams", speakHTTP2Crowd, "settings", 90, false},
		{"gRPC/for a stream that is over", speakHTTP2, "useless", 900, false},
		{"gRPC/open and reset", speakHTTP2, "reset", 900, false},
		{"gRPC/open that is refused", speakHTTP2, "refused", 900, false},
		{"brpc/report", speakBrpc, "grant", 900, false},
		{"brpc/call that is refused", speakBrpc, "refused", 900, false},
	} {
		b.Run(row.name, func(b *testing.B) {
			srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{
				Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}, strm.Protocol{}},
			}))
			ok(b, err)
			srv.Handle("stuck", func(ctx context.Context, _ *kernel.Stream) error {
				<-ctx.Done()
				return nil
			})
			srv.Handle("reads", func(ctx context.Context, s *kernel.Stream) error {
				for m := range s.In() {
					m.Release()
				}
				return s.Err()
			})
			ln, served := listen(b), make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			var used []float64 // for a frame, by connection
			for left := b.N; left > 0; left -= row.most {
				n := min(left, row.most)
				s := row.speak(b, ln.Addr().String())
				ok(b, s.settle()) // the server has begun
				var words [][]byte
				for range n {
					words = append(words, s.word(row.what))
				}
				if !row.alone {
					words = [][]byte{bytes.Join(words, nil)}
				}
				begun := cpuTime()
				for _, w := range words {
					ok(b, s.say(w))
					if row.alone && row.what == "ping" {
						ok(b, s.pong())
					}
				}
				if !row.alone {
					ok(b, s.settle())
				}
				used = append(used, float64(cpuTime()-begun)/float64(n))
				ok(b, s.end())
			}
			slices.Sort(used)
			b.ReportMetric(used[len(used)/2], "cpu-ns/op")
			b.ReportMetric(0, "ns/op")
			ok(b, srv.Close())
			<-served
		})
	}
}

// A speaker is a peer that says what a benchmark asks for.
type speaker interface {
	word(what string) []byte
	say(p []byte) error
	pong() error   // waits for the answer to a ping
	settle() error // returns when all that was said has been read
	end() error
}

// A line is the connection of a speaker.
type line struct {
	net.Conn
	r *bufio.Reader
}

func dialLine(b *testing.B, addr string) line {
	nc, err := net.Dial("tcp", addr)
	ok(b, err)
	return line{nc, bufio.NewReaderSize(nc, 64<<10)}
}

func (l *line) say(p []byte) error {
	_, err := l.Write(p)
	return err
}

func (l *line) end() error { return l.Close() }

// settled is the ping behind what a speaker has said.
const settled = 4711

type nativeSpeaker struct {
	line
	sess frame.Session
	next uint64
	got  []byte
}

func speakNative(b *testing.B, addr string) speaker {
	s := &nativeSpeaker{line: dialLine(b, addr), next: 1}
	g := &frame.Greeting{Client: true, Own: frame.Settings{
		MaxFragment: 64 << 10, MaxMessage: 1 << 20, MaxStreams: 100, MaxMetadata: 16 << 10, InitialCredit: 1 << 20, ConnCredit: 1 << 24, Checksum: true,
	}}
	var err error
	s.sess, err = native.Protocol{}.Handshake(context.Background(), s, g)
	ok(b, err)
	s.got = g.Early
	ok(b, s.say(s.open("stuck")))
	return s
}

func (s *nativeSpeaker) frame(fs ...frame.Frame) []byte {
	var o frame.Out
	for i := range fs {
		s.sess.Control(&o, &fs[i])
	}
	s.sess.Flush(&o)
	return o.Buf
}

func (s *nativeSpeaker) open(method string) []byte {
	s.next += 2
	return s.frame(frame.Frame{Kind: frame.Open, Stream: s.next - 2, Method: method, Grants: []frame.Grant{{Credit: 1 << 20}}})
}

func (s *nativeSpeaker) word(what string) []byte {
	switch what {
	case "ping":
		return s.frame(frame.Frame{Kind: frame.Ping, Value: 1})
	case "grant":
		return s.frame(frame.Frame{Kind: frame.Credit, Stream: 1, Value: 1 << 20})
	case "report":
		return s.frame(frame.Frame{Kind: frame.Read})
	case "refused":
		return s.open("nobody serves it")
	case "reset":
		open := s.open("stuck")
		return append(open, s.frame(frame.Frame{Kind: frame.Reset, Stream: s.next - 2, Code: status.Cancelled})...)
	}
	if s.next == 3 { // the first of its kind
		open := s.open("stuck")
		return append(open, s.frame(frame.Frame{Kind: frame.Reset, Stream: 3, Code: status.Cancelled})...)
	}
	return s.frame(frame.Frame{Kind: frame.Stop, Stream: 3})
}

func (s *nativeSpeaker) pong() error { return s.await(1) }

func (s *nativeSpeaker) settle() error {
	if err := s.say(s.frame(frame.Frame{Kind: frame.Ping, Value: settled})); err != nil {
		return err
	}
	return s.await(settled)
}

func (s *nativeSpeaker) await(value uint64) error {
	p := make([]byte, 64<<10)
	for {
		for f := (frame.Frame{}); ; {
			n, err := s.sess.Next(s.got, &f)
			s.got = s.got[n:]
			switch {
			case err != nil:
				return err
			case f.Kind == frame.Pong && f.Value == value:
				return nil
			case f.Kind == frame.GoAway:
				return &status.ProtocolError{Code: f.Code, Detail: f.Reason}
			}
			if f.Kind == frame.None {
				break
			}
		}
		n, err := s.r.Read(p)
		if err != nil {
			return err
		}
		s.got = append(s.got[:len(s.got):len(s.got)], p[:n]...)
	}
}

type http2Speaker struct {
	line
	next   uint32
	window uint32 // the last change of the first window
	block  bytes.Buffer
	enc    *hpack.Encoder
}

func speakHTTP2(b *testing.B, addr string) speaker {
	s := &http2Speaker{line: dialLine(b, addr), next: 1}
	s.enc = hpack.NewEncoder(&s.block)
	ok(b, s.say(join([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2Setting(4, 1<<20), s.open("stuck"))))
	return s
}

// speakHTTP2Crowd has as many streams open as a server allows, which each change of the first
// window reaches.
func speakHTTP2Crowd(b *testing.B, addr string) speaker {
	s := speakHTTP2(b, addr).(*http2Speaker)
	for s.next < 2*1000 {
		ok(b, s.say(s.open("stuck")))
	}
	return s
}

func (s *http2Speaker) open(method string) []byte {
	s.block.Reset()
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/" + method}, {":authority", "a"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = s.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // to a buffer
	}
	s.next += 2
	return h2(h2Headers, h2EndHeaders, s.next-2, s.block.Bytes())
}

func (s *http2Speaker) word(what string) []byte {
	switch what {
	case "ping":
		return h2(h2Ping, 0, 0, make([]byte, 8))
	case "grant":
		return h2Grant(1, 1)
	case "settings":
		s.window ^= 1
		return h2Setting(4, 1<<20+s.window)
	case "refused":
		return s.open("nobody serves it")
	case "reset":
		open := s.open("stuck")
		return append(open, h2Rst(s.next-2, h2Cancel)...)
	}
	if s.next == 3 { // the first of its kind
		return append(s.open("stuck"), h2Rst(3, h2Cancel)...)
	}
	return h2Rst(3, h2Cancel)
}

func (s *http2Speaker) pong() error { return s.await(0) }

func (s *http2Speaker) settle() error {
	if err := s.say(h2(h2Ping, 0, 0, binary.BigEndian.AppendUint64(nil, settled))); err != nil {
		return err
	}
	return s.await(settled)
}

func (s *http2Speaker) await(value uint64) error {
	for {
		var h [9]byte
		if _, err := io.ReadFull(s.r, h[:]); err != nil {
			return err
		}
		p := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(s.r, p); err != nil {
			return err
		}
		switch {
		case h[3] == h2Ping && h[4] == h2Ack && binary.BigEndian.Uint64(p) == value:
			return nil
		case h[3] == h2GoAway:
			return &status.ProtocolError{Detail: string(p)}
		}
	}
}

type brpcSpeaker struct {
	line
	asked  int64 // requests
	stream int64 // the server's number of the one that is open
}

func speakBrpc(b *testing.B, addr string) speaker {
	s := &brpcSpeaker{line: dialLine(b, addr)}
	ok(b, s.say(s.ask("reads", 1)))
	answer, err := s.await()
	ok(b, err)
	s.stream = answer.sub(8).num(1)
	return s
}

func (s *brpcSpeaker) ask(method string, streams ...int64) []byte {
	s.asked++
	return brpcAsk{method: method, id: s.asked, streams: streams}.bytes()
}

func (s *brpcSpeaker) word(what string) []byte {
	if what == "grant" {
		return strmFeedback(s.stream, 1, 0)
	}
	return s.ask("nobody serves it")
}

func (s *brpcSpeaker) pong() error { return nil }

// settle waits for the answer to the last request, which is refused.
func (s *brpcSpeaker) settle() error {
	if err := s.say(s.ask("nobody serves it")); err != nil {
		return err
	}
	_, err := s.await()
	return err
}

// await waits for the answer to the last request.
func (s *brpcSpeaker) await() (*word, error) {
	for {
		p := make([]byte, 12, 256)
		if _, err := io.ReadFull(s.r, p); err != nil {
			return nil, err
		}
		p = append(p, make([]byte, binary.BigEndian.Uint32(p[4:]))...)
		if _, err := io.ReadFull(s.r, p[12:]); err != nil {
			return nil, err
		}
		w, _ := parseWord(p)
		if w.inner != nil {
			w = w.inner
		}
		if w.magic == "PRPC" && w.num(4) == s.asked {
			return w, nil
		}
	}
}
