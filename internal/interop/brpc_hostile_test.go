package interop

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// The rows of the hostile catalogue that apply to brpc's protocol, numbered as there
// (see TestHostileFraming). frame/strm tests more of what its codec refuses; here
// it is what a server does about it, and that nobody else notices.

// A brpcRow is one row: an attacker has one echo stream, own, and the server's end
// of it is theirs.
type brpcRow struct {
	name  string
	do    func(p *brpcPeer, own, theirs int64)
	ends  ends
	code  status.Code   // of the connection's end, or of the stream's, as its handler sees it
	after time.Duration // how long it may take, in the bubble's time
	alloc uint64        // bytes; 0: 512 KiB
	limit func(*kernel.Limits)
	check func(p *brpcPeer, own, theirs int64)
}

func runBrpcHostile(t *testing.T, rows []brpcRow) {
	t.Helper()
	for i := range rows {
		row := &rows[i]
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := targetLimits()
				if row.limit != nil {
					row.limit(&l)
				}
				row.run(t, brpcTarget(t, true, kernel.ServerOptions{Limits: l}))
			})
		})
	}
}

func (row *brpcRow) run(t *testing.T, tg *target) {
	t.Helper()
	handled := make(chan error, 1)
	tg.Srv.Handle("mine", func(ctx context.Context, s *kernel.Stream) error {
		err := echo(ctx, s)
		handled <- s.Err()
		return err
	})
	tg.Srv.Handle("holds", func(ctx context.Context, s *kernel.Stream) error {
		_ = s.Idle() // accepts
		<-ctx.Done()
		return nil
	})
	tg.ConnectHonest()
	p := tg.brpcAttack()
	own, theirs := p.open("mine")
	p.send(strmData(theirs, own, "hello"))
	got := allocated(func() {
		row.do(p, own, theirs)
		synctest.Wait()
		time.Sleep(row.after + 200*time.Millisecond) // GOAWAYs linger
		synctest.Wait()
	})
	if most := max(row.alloc, 512<<10); got > most {
		t.Errorf("%d bytes were allocated, %d are allowed", got, most)
	}
	switch row.ends {
	case connection:
		if !errors.Is(p.over(), io.EOF) {
			t.Errorf("the connection goes on: %s", p.tail())
		}
		var ce *status.ConnError
		if err := awaitEnd(handled); !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) || !errors.As(err, &ce) || ce.Code != row.code {
			t.Errorf("the stream ended with %v, want a connection's end by %v", err, row.code)
		}
	case stream:
		if p.over() != nil {
			t.Fatalf("the connection ended: %s; logged: %s", p.tail(), tg.Log)
		}
		if len(p.frames(brpcRST, own))+len(p.frames(brpcClose, own)) == 0 {
			t.Errorf("the stream goes on: %s", p.tail())
		}
		if err := awaitEnd(handled); !errors.Is(err, &status.StreamError{Code: row.code}) {
			t.Errorf("the stream ended with %v, want %v", err, row.code)
		}
		p.echoes()
	case nothing:
		if p.over() != nil || len(handled) > 0 || len(p.frames(brpcRST, own)) > 0 {
			t.Fatalf("something ended: %s; logged: %s", p.tail(), tg.Log)
		}
		p.send(strmData(theirs, own, "still here"))
		if got := p.texts(own); !strings.HasSuffix(got, ` "still here"]`) {
			t.Errorf("the stream heard %s", got)
		}
		p.echoes()
	}
	if row.check != nil {
		row.check(p, own, theirs)
	}
	tg.Unharmed()
	row.settled(t, tg, p, own, theirs)
}

// awaitEnd waits for a handler, for a bubble's while.
func awaitEnd(ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		return errors.New("not at all")
	}
}

// settled checks that nothing is left of the attack when its stream is closed.
func (row *brpcRow) settled(t *testing.T, tg *target, p *brpcPeer, own, theirs int64) {
	t.Helper()
	if p.over() == nil {
		p.send(strmFrame(brpcClose, theirs, own, false, ""))
	}
	for _, c := range tg.Srv.Conns() {
		if b := c.Snapshot(); c.Protocol() == "brpc" && (row.ends == nothing || row.ends == stream) &&
			(b.Streams != 0 || b.Assembled != 0 || b.OpenBytes != 0 || unreadOf(c) != 0) {
			t.Errorf("left: %+v, %d unread", b, unreadOf(c))
		}
	}
}

// echoes checks that a new stream of the connection works, and a call.
func (p *brpcPeer) echoes() {
	p.t.Helper()
	own, theirs := p.open("echo")
	p.send(strmData(theirs, own, "alive"))
	p.send(strmFrame(brpcClose, theirs, own, false, ""))
	if got := p.texts(own); got != `["alive"]` || len(p.frames(brpcClose, own)) != 1 {
		p.t.Errorf("another stream heard %s: %s", got, p.tail())
	}
	p.send(brpcAsk{method: "echo", id: 1 << 30, payload: "call"}.bytes())
	if a, _ := p.answer(1 << 30); a == nil || string(a.payload) != "call" {
		p.t.Errorf("a call was answered %s", p.tail())
	}
}

// brpcSays writes bytes as they are.
func brpcSays(parts ...[]byte) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, _, _ int64) { _ = p.say(parts...) }
}

// onStream writes what f makes for the stream.
func onStream(f func(own, theirs int64) []byte) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, own, theirs int64) { _ = p.say(f(own, theirs)) }
}

// wantAnswer checks that request 1 was answered with an error.
func wantAnswer(errno int64) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, _, _ int64) {
		p.t.Helper()
		if a, _ := p.answer(1); a == nil || a.errno() != errno {
			p.t.Errorf("answered %v, want %d: %s", a, errno, p.tail())
		}
	}
}

// wantResets checks how many RSTs went to a stream that is not there.
func wantResets(to int64, n int) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, _, _ int64) {
		p.t.Helper()
		rs := p.frames(brpcRST, to)
		if len(rs) != n || n > 0 && len(rs[0].fields[2]) > 0 {
			p.t.Errorf("resets %v, want %d without a source: %s", rs, n, p.tail())
		}
	}
}

// targetMessage is targetLimits' longest message.
const targetMessage = 1 << 20

func TestBrpcHostileFraming(t *testing.T) {
	longest := targetMessage + 12 + 64<<10 + 1<<10
	varint := append(bytes.Repeat([]byte{0xff}, 10), 1)
	runBrpcHostile(t, []brpcRow{
		{name: "07 end between frames", do: func(p *brpcPeer, _, _ int64) { _ = p.nc.(interface{ CloseWrite() error }).CloseWrite() },
			ends: connection, code: status.ConnectionLost},
		{name: "08 a body of 4 GiB", do: brpcSays(packedHead("STRM", 1<<32-1, 10)), ends: connection, code: status.FrameSize},
		{name: "08 a packet of 4 GiB", do: brpcSays(packedHead("PRPC", 1<<32-1, 10)), ends: connection, code: status.FrameSize},
		{name: "08 a body one beyond the limit", do: brpcSays(packedHead("STRM", longest+1, 10)), ends: connection, code: status.FrameSize},
		{name: "08 a meta of a MiB", do: brpcSays(packedHead("PRPC", 1<<20, 1<<20)), ends: connection, code: status.FrameSize},
		{name: "09 a legal length and silence", do: brpcSays(packedHead("STRM", 1<<20, 10), []byte{8}), after: 31 * time.Second,
			ends: connection, code: status.DeadlineExceeded},
		{name: "10 a CLOSE with data", do: onStream(func(own, theirs int64) []byte { return strmFrame(brpcClose, theirs, own, false, "x") }),
			ends: connection, code: status.FrameSize},
		{name: "10 a frame without a meta", do: brpcSays(packedHead("STRM", 10, 0)), ends: connection, code: status.Protocol},
		{name: "11 frames of unknown types", do: onStream(func(own, theirs int64) []byte { return bytes.Repeat(strmFrame(9, theirs, own, false, ""), 1000) }), ends: nothing},
		{name: "11 too many of them", do: onStream(func(own, theirs int64) []byte { return bytes.Repeat(strmFrame(9, theirs, own, false, ""), 1001) }),
			ends: connection, code: status.EnhanceYourCalm},
		{name: "12 unknown fields", do: onStream(func(own, theirs int64) []byte {
			return packed("STRM", join(num(1, theirs), num(2, own), num(3, brpcData), num(77, 1), str(78, "x")), []byte("x"))
		}), ends: nothing},
		{name: "14 an answer from a client", do: brpcSays(packed("PRPC", join(str(2, num(1, 0)), num(4, 1)), nil)), ends: connection, code: status.Protocol},
		{name: "22 an attachment longer than the packet", do: brpcSays(brpcAsk{method: "echo", id: 1, payload: "x", meta: num(5, 2)}.bytes()),
			ends: nothing, check: wantAnswer(1003)},
		{name: "22 an attachment below nothing", do: brpcSays(brpcAsk{method: "echo", id: 1, payload: "x", meta: num(5, -1)}.bytes()),
			ends: nothing, check: wantAnswer(1003)},
		{name: "23 a varint of eleven bytes", do: brpcSays(packed("STRM", append(protowire.AppendTag(nil, 1, protowire.VarintType), varint...), nil)),
			ends: connection, code: status.Protocol},
		{name: "26 segments of two streams", do: segmentsOfTwoStreams, ends: nothing},
		{name: "27 a message beyond the limit", alloc: 16 << 20, do: onStream(func(own, theirs int64) []byte {
			return bytes.Repeat(strmFrame(brpcData, theirs, own, true, strings.Repeat("x", 64<<10)), targetMessage/(64<<10)+1)
		}), ends: stream, code: status.TooLarge},
		{name: "27 one beyond the limit in a frame", alloc: 16 << 20, do: onStream(func(own, theirs int64) []byte {
			return strmData(theirs, own, strings.Repeat("x", targetMessage+1))
		}), ends: stream, code: status.TooLarge},
		{name: "28 a message byte by byte", alloc: 4 << 20, do: onStream(func(own, theirs int64) []byte {
			return bytes.Repeat(strmFrame(brpcData, theirs, own, true, "x"), 1001)
		}), ends: connection, code: status.EnhanceYourCalm},
		{name: "29 empty segments", alloc: 4 << 20, do: onStream(func(own, theirs int64) []byte {
			return bytes.Repeat(strmFrame(brpcData, theirs, own, true, ""), 11)
		}), ends: connection, code: status.EnhanceYourCalm},
		{name: "60 a byte a second", do: func(p *brpcPeer, own, theirs int64) {
			for _, b := range strmData(theirs, own, strings.Repeat("x", 100)) {
				if p.say([]byte{b}) != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, ends: connection, code: status.DeadlineExceeded},
		{name: "102 another protocol behind the first request", do: brpcSays([]byte("PRI * HTTP/2.0\r\n")), ends: connection, code: status.Protocol},
		{name: "103 a meta longer than its body", do: brpcSays(packedHead("STRM", 5, 6)), ends: connection, code: status.FrameSize},
		{name: "103 a packet's meta longer than its body", do: brpcSays(packedHead("PRPC", 5, 6)), ends: connection, code: status.FrameSize},
		{name: "103 no stream_id", do: brpcSays(packed("STRM", num(3, brpcData), []byte("x"))), ends: connection, code: status.Protocol},
		{name: "103 a meta that is no message", do: brpcSays(packed("PRPC", []byte{0xff, 0xff}, nil)), ends: connection, code: status.Protocol},
		{name: "103 a request without a method", do: brpcSays(packed("PRPC", str(1, str(1, "x")), nil)), ends: connection, code: status.Protocol},
		{name: "103 feedback that goes backwards", do: onStream(func(own, theirs int64) []byte {
			return join(strmFeedback(theirs, own, 5), strmFeedback(theirs, own, 3), strmFeedback(theirs, own, 0), strmFeedback(theirs, own, 5))
		}), ends: nothing},
		{name: "103 feedback of more than was sent", do: onStream(func(own, theirs int64) []byte { return strmFeedback(theirs, own, 6) }),
			ends: connection, code: status.FlowControl},
		{name: "103 feedback below nothing", do: onStream(func(own, theirs int64) []byte { return strmFeedback(theirs, own, -1) }),
			ends: connection, code: status.FlowControl},
	})
}

func segmentsOfTwoStreams(p *brpcPeer, own, theirs int64) {
	b, bTheirs := p.open("echo")
	p.send(strmFrame(brpcData, theirs, own, true, "ab"), strmFrame(brpcData, bTheirs, b, true, "uv"), strmFrame(brpcData, theirs, own, true, "cd"),
		strmData(bTheirs, b, "wx"), strmData(theirs, own, "ef"))
	if x, y := p.texts(own), p.texts(b); x != `["hello" "abcdef"]` || y != `["uvwx"]` {
		p.t.Errorf("put together to %s and %s", x, y)
	}
	p.send(strmFrame(brpcClose, bTheirs, b, false, ""))
}

func TestBrpcHostileStreams(t *testing.T) {
	few := func(l *kernel.Limits) { l.MaxStreams = 5 }
	runBrpcHostile(t, []brpcRow{
		{name: "16 too many streams in a request", do: brpcSays(brpcAsk{method: "echo", id: 1, streams: make([]int64, 257)}.bytes()),
			ends: nothing, check: wantAnswer(1003)},
		{name: "25 a CLOSE inside a message", do: onStream(func(own, theirs int64) []byte {
			return join(strmFrame(brpcData, theirs, own, true, "half"), strmFrame(brpcClose, theirs, own, false, ""))
		}), ends: stream, code: status.DataLoss},
		{name: "25 an RST inside a message", do: onStream(func(own, theirs int64) []byte {
			return join(strmFrame(brpcData, theirs, own, true, "half"), strmFrame(brpcRST, theirs, -1, false, ""))
		}), ends: stream, code: status.Aborted},
		{name: "32 data for a stream that never was", do: brpcSays(strmData(4711, 99, "x")), ends: nothing, check: wantResets(99, 1)},
		{name: "32 a CLOSE for one", do: brpcSays(strmFrame(brpcClose, 4711, 99, false, "")), ends: nothing, check: wantResets(99, 1)},
		{name: "32 an RST for one", do: brpcSays(strmFrame(brpcRST, 4711, -1, false, "")), ends: nothing, check: wantResets(99, 0)},
		{name: "32 feedback for one", do: brpcSays(strmFeedback(4711, 99, 1)), ends: nothing, check: wantResets(99, 0)},
		{name: "32 data for a negative one", do: brpcSays(strmData(-1, 99, "x")), ends: nothing, check: wantResets(99, 1)},
		{name: "32 data of nobody's for one", do: brpcSays(strmFrame(brpcData, 4711, -1, false, "x")), ends: nothing},
		{name: "33 data on a stream that we reset", alloc: 16 << 20, do: onStream(func(own, theirs int64) []byte {
			return join(strmData(theirs, own, strings.Repeat("x", targetMessage+1)), bytes.Repeat(strmData(theirs, own, "late"), 5000))
		}), ends: stream, code: status.TooLarge},
		{name: "36 a second CLOSE", do: func(p *brpcPeer, _, _ int64) {
			own, theirs := p.open("echo")
			p.send(bytes.Repeat(strmFrame(brpcClose, theirs, own, false, ""), 100))
			if n := len(p.frames(brpcClose, own)); n != 1 {
				p.t.Errorf("%d CLOSEs came: %s", n, p.tail())
			}
		}, ends: nothing},
		{name: "41 more than is held of a stream", alloc: 32 << 20, limit: func(l *kernel.Limits) { l.SenderWindow = targetMessage },
			do: func(p *brpcPeer, _, _ int64) {
				own, theirs := p.open("holds")
				p.send(bytes.Repeat(strmData(theirs, own, strings.Repeat("x", 60<<10)), 20))
				if len(p.frames(brpcRST, own)) != 1 {
					p.t.Errorf("not reset: %s", p.tail())
				}
				p.send(strmFrame(brpcClose, theirs, own, false, ""))
			}, ends: nothing},
		{name: "41 empty messages beyond it", alloc: 48 << 20, limit: func(l *kernel.Limits) { l.SenderWindow = targetMessage },
			do: func(p *brpcPeer, _, _ int64) {
				own, theirs := p.open("holds")
				p.send(bytes.Repeat(strmData(theirs, own, ""), targetMessage/7+1000)) // a message counts seven bytes at least
				if len(p.frames(brpcRST, own)) != 1 {
					p.t.Errorf("not reset: %s", p.tail())
				}
				p.send(strmFrame(brpcClose, theirs, own, false, ""))
			}, ends: nothing},
		{name: "42 streams beyond the limit", limit: few, do: opensOf("stuck", 10), ends: connection, code: status.ConnectionLost, check: wantErrno(2004), alloc: 2 << 20},
		{name: "42 ten times the limit of refusals", limit: few, do: opensOf("stuck", 10+500), ends: connection, code: status.ConnectionLost, check: wantErrno(2004), alloc: 4 << 20},
		{name: "43 an unknown method", do: brpcSays(brpcAsk{service: "no.Such", method: "Thing", id: 1, streams: []int64{1}, payload: "x"}.bytes()),
			ends: nothing, check: wantAnswer(1002)},
		{name: "44 metadata beyond the limit", do: brpcSays(brpcAsk{method: "echo", id: 1, meta: str(9, join(str(1, "k"), str(2, make([]byte, 20<<10))))}.bytes()),
			ends: nothing, check: wantAnswer(90)},
		{name: "44 ten thousand keys", do: brpcSays(brpcAsk{method: "echo", id: 1, meta: bytes.Repeat(str(9, str(1, "k")), 10_000)}.bytes()),
			ends: nothing, check: wantAnswer(90), alloc: 4 << 20},
		{name: "44 thirty thousand empty fields", do: brpcSays(brpcAsk{method: "echo", id: 1, meta: bytes.Repeat(str(9, ""), 30_000)}.bytes()),
			ends: nothing, check: wantAnswer(90)},
		{name: "44 keys that are none", do: brpcSays(brpcAsk{method: "echo", id: 1, meta: str(9, join(str(1, "A\x00 b\xff"), str(2, "v")))}.bytes()),
			ends: nothing, check: wantAnswer(0)},
		{name: "46 opens and resets", do: opensAndSays(func(theirs, _ int64) []byte {
			return strmFrame(brpcRST, theirs, -1, false, "")
		}), ends: nothing, alloc: 96 << 20},
		{name: "47 opens, and what has us reset them", limit: func(l *kernel.Limits) { l.MaxMessage, l.SenderWindow = 1000, 1000 },
			do: opensAndSays(func(theirs, own int64) []byte {
				return join(strmData(theirs, own, strings.Repeat("x", 1001)), strmFrame(brpcClose, theirs, own, false, ""))
			}), ends: nothing, alloc: 96 << 20},
	})
}

// opensOf opens n streams and closes none.
func opensOf(method string, n int) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, _, _ int64) {
		for i := range n {
			_ = p.say(brpcAsk{method: method, id: int64(1000 + i), streams: []int64{int64(1000 + i)}}.bytes())
			synctest.Wait()
		}
		synctest.Wait() // the row is about the answers
		_ = p.nc.(interface{ CloseWrite() error }).CloseWrite()
	}
}

// wantErrno checks that the last open was answered so, and that no handler looked at it.
func wantErrno(errno int64) func(p *brpcPeer, own, theirs int64) {
	return func(p *brpcPeer, _, _ int64) {
		p.t.Helper()
		if a, wrapped := p.answer(1009); a == nil || !wrapped || a.errno() != errno {
			p.t.Errorf("the last was answered %v: %s", a, p.tail())
		}
	}
}

// opensAndSays opens streams, one after another, and says of each what then gives.
func opensAndSays(then func(theirs, own int64) []byte) func(p *brpcPeer, _, _ int64) {
	return func(p *brpcPeer, _, _ int64) {
		for range 2000 {
			id := p.next
			p.next++
			if p.say(brpcAsk{method: "holds", id: id, streams: []int64{id}}.bytes()) != nil {
				return
			}
			synctest.Wait()
			a, _ := p.answer(id)
			if a == nil || len(a.streams()) == 0 || p.say(then(a.streams()[0], id)) != nil {
				return
			}
		}
	}
}

func TestBrpcHostilePackets(t *testing.T) {
	squeeze := func(p []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(p)
		_ = z.Close()
		return b.Bytes()
	}
	bomb := squeeze(make([]byte, 16<<20))
	small := squeeze([]byte("small"))
	ask := func(payload []byte, meta ...[]byte) []byte {
		return brpcAsk{method: "echo", id: 1, payload: string(payload), meta: join(meta...)}.bytes()
	}
	runBrpcHostile(t, []brpcRow{
		{name: "20 a checksum that is wrong", do: brpcSays(ask([]byte("x"), num(11, 1), str(12, "abcd"))), ends: nothing, check: wantAnswer(1003)},
		{name: "20 a checksum of an unknown kind", do: brpcSays(ask([]byte("x"), num(11, 9), str(12, "abcd"))), ends: nothing, check: wantAnswer(1003)},
		{name: "57 a bomb", do: brpcSays(ask(bomb, num(3, 2))), ends: nothing, check: wantAnswer(90), alloc: 8 << 20},
		{name: "57 a bomb that opens a stream", do: brpcSays(brpcAsk{method: "echo", id: 1, streams: []int64{8}, payload: string(bomb), meta: num(3, 2)}.bytes()),
			ends: nothing, check: wantAnswer(90), alloc: 8 << 20},
		{name: "57 cut short", do: brpcSays(ask(small[:len(small)-4], num(3, 2))), ends: nothing, check: wantAnswer(1003)},
		{name: "57 bytes behind it", do: brpcSays(ask(append(bytes.Clone(small), "more"...), num(3, 2))), ends: nothing, check: wantAnswer(1003)},
		{name: "57 another algorithm", do: brpcSays(ask(small, num(3, 1))), ends: nothing, check: wantAnswer(1003)},
		{name: "57 an unknown algorithm", do: brpcSays(ask(small, num(3, 4))), ends: nothing, check: wantAnswer(1003)},
		{name: "57 snappy that announces 4 GiB", do: brpcSays(ask([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, num(3, 1))), ends: nothing, check: wantAnswer(90)},
	})
}

// A flood of frames that want an answer, from a peer that reads none, ends with its
// connection, and costs little until then; so does one that opens a stream and never
// reads it.
func TestBrpcHostileSilence(t *testing.T) {
	for name, k := range map[string]struct {
		say   func(p *brpcPeer)
		why   string // in the log
		after time.Duration
		alloc uint64
	}{
		"53 strays that want answers": {func(p *brpcPeer) {
			_ = p.say(brpcAsk{method: "echo", id: 1}.bytes())
			for i := range int64(60_000) { // the pipe, a write and what waits behind it hold 256 KiB each
				if p.say(strmData(4711, i, "x")) != nil {
					return
				}
			}
		}, "answers are pending", time.Second, 24 << 20},
		"58 a stream that is never read": {func(p *brpcPeer) {
			_ = p.say(brpcAsk{method: "source", id: 1, streams: []int64{1}, quiet: true}.bytes())
		}, "the peer does not read", 61 * time.Second, 16 << 20},
		"03 the first bytes one by one": {func(p *brpcPeer) {
			for _, b := range []byte("PRPC") {
				if p.say([]byte{b}) != nil {
					return
				}
				time.Sleep(2 * time.Second)
			}
		}, "handshake failed", time.Second, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := brpcTarget(t, true, kernel.ServerOptions{})
				tg.ConnectHonest()
				p := newBrpcPeer(t, tg.Connect())
				done := make(chan struct{})
				got := allocated(func() {
					go func() {
						k.say(p)
						close(done)
					}()
					time.Sleep(k.after)
					synctest.Wait()
				})
				if got > k.alloc {
					t.Errorf("%d bytes were allocated, %d are allowed", got, k.alloc)
				}
				tg.Unharmed()
				time.Sleep(10 * time.Second)
				go p.listen()
				synctest.Wait()
				<-done
				if p.over() == nil || !strings.Contains(tg.Log.String(), k.why) {
					t.Errorf("did not end because %s: %s; logged: %s", k.why, p.tail(), tg.Log)
				}
				tg.Unharmed()
				if n := tg.Srv.Stats().Conns; n != 1 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// A packet that is compressed is kept until all of it is there. Peers that never send
// its end can't have the server hold more than its budget.
func TestBrpcHostileUnreadStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.Memory = 8 << 20
		tg := brpcTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		whole := brpcAsk{method: "echo", id: 1, payload: string(make([]byte, 900<<10)), meta: num(3, 2)}.bytes()
		var peers []*brpcPeer
		for range 20 {
			p := tg.brpcAttack()
			go func() { _ = p.say(whole[:len(whole)-1]) }()
			peers = append(peers, p)
		}
		time.Sleep(time.Second)
		left := 0
		for _, p := range peers {
			if p.over() == nil {
				left++
			}
		}
		if left == 0 || left > 8 {
			t.Errorf("%d of %d connections are left, the budget is for 8", left, len(peers))
		}
		if n := tg.Srv.Stats().Evicted; int(n) != len(peers)-left {
			t.Errorf("%d were evicted, %d are counted", len(peers)-left, n)
		}
		if why := "out of memory"; !strings.Contains(tg.Log.String(), why) {
			t.Errorf("%q is not in the log: %s", why, tg.Log)
		}
		tg.Unharmed()
	})
}

// What came before a reset is the handler's to read, at its own pace. Peers that make
// many handlers keep much of it are held to a bound: streams with the most unread lose it.
func TestBrpcHostileResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.SenderWindow = 2 << 20
		tg := brpcTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		const streams, part, parts = 20, 1000, 1000
		var whole, cut atomic.Int64
		read := make(chan struct{})
		tg.Srv.Handle("slow", func(_ context.Context, s *kernel.Stream) error {
			in := s.In()
			<-read // whatever becomes of the stream
			n := 0
			for m := range in {
				n += m.Len()
				m.Release()
			}
			switch {
			case n == parts*part:
				whole.Add(1)
			case n <= 17*part: // In's buffer
				cut.Add(1)
			}
			wantCode(t, s.Err(), status.Aborted)
			return nil
		})
		p := tg.brpcAttack()
		for range streams {
			own, theirs := p.open("slow")
			p.send(bytes.Repeat(strmData(theirs, own, string(make([]byte, part))), parts))
			p.send(strmFrame(brpcRST, theirs, -1, false, ""))
			if held := unread(tg.Srv); held > 9<<20 {
				t.Fatalf("%d bytes are held", held)
			}
		}
		tg.Unharmed()
		close(read)
		synctest.Wait()
		if w, c := whole.Load(), cut.Load(); w != 8 || c != streams-8 { // four windows' worth
			t.Errorf("%d streams were read whole, and of %d something was dropped", w, c)
		}
		if held := unread(tg.Srv); held != 0 {
			t.Errorf("%d bytes are held in the end", held)
		}
		tg.Unharmed()
	})
}

// unread is what a server's connections hold.
func unread(srv *kernel.Server) (n int) {
	for _, c := range srv.Conns() {
		n += unreadOf(c)
	}
	return n
}

// Rows 4 to 6: the connection ends at each byte of a conversation: never does a part
// of a message come out, nor a clean end.
func TestBrpcHostileTruncation(t *testing.T) {
	script := [][]byte{
		brpcAsk{method: "log", id: 1, streams: []int64{1}}.bytes(),
		strmData(1, 1, "one"), strmFrame(brpcData, 1, 1, true, "half"), strmData(1, 1, "of it!"),
		strmFrame(brpcClose, 1, 1, false, ""),
	}
	open := len(script[0])
	one := open + len(script[1])
	two := one + len(script[2]) + len(script[3])
	all := join(script...)
	for cut := open; cut < len(all); cut++ {
		synctest.Test(t, func(t *testing.T) {
			tg := brpcTarget(t, true, kernel.ServerOptions{})
			tg.ConnectHonest()
			want := ""
			if cut >= one {
				want += "one "
			}
			if cut >= two {
				want += "halfof it! "
			}
			tg.CutShort(cut, want, func() {
				p := tg.brpcAttack()
				p.send(all[:open])
				_ = p.say(all[open:cut])
				_ = p.nc.Close()
			})
		})
	}
}

// An id means something on its own connection only: brpc's own servers let any
// connection write to any stream.
func TestBrpcIdsBelongToTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := brpcTarget(t, true, kernel.ServerOptions{})
		a, b := tg.brpcAttack(), tg.brpcAttack()
		own, theirs := a.open("echo")
		b.send(brpcAsk{method: "echo", id: 1, payload: "x"}.bytes())
		b.send(brpcAsk{method: "echo", id: 2, payload: "x"}.bytes())
		b.send(strmData(theirs, 77, "written by another"), strmFrame(brpcClose, theirs, 77, false, ""), strmFrame(brpcRST, theirs, -1, false, ""))
		a.send(strmData(theirs, own, "mine"))
		if got := a.texts(own); got != `["mine"]` || len(a.frames(brpcRST, own)) > 0 {
			t.Errorf("the stream heard %s: %s", got, a.tail())
		}
		wantResets(77, 1)(b, 0, 0)
	})
}

// A client defends itself as a server does.
func TestBrpcHostileServers(t *testing.T) {
	answer := func(r *word, streams ...int64) []byte {
		meta := join(str(2, num(1, 0)), num(4, r.num(4)))
		if len(streams) > 0 {
			meta = append(meta, brpcSettings(streams, true, true)...)
		}
		return packed("PRPC", meta, []byte("reply"))
	}
	for _, row := range []struct {
		name string
		say  func(r *word, own int64) []byte
		code status.Code // of the connection's end
	}{
		{"08 a frame beyond the limit", func(*word, int64) []byte { return packedHead("STRM", 1<<30, 10) }, status.FrameSize},
		{"14 a request from the server", func(*word, int64) []byte { return brpcAsk{method: "x", id: 1}.bytes() }, status.Protocol},
		{"32 data before the answer", func(_ *word, own int64) []byte { return strmData(own, 5, "no answer") }, status.Protocol},
		{"32 an answer to another request", func(r *word, own int64) []byte {
			r = &word{fields: map[protowire.Number][]any{4: {uint64(r.num(4) + 2)}}}
			return strmData(own, 5, string(answer(r, 5)))
		}, status.Protocol},
		{"32 half an answer", func(r *word, own int64) []byte { return strmData(own, 5, string(answer(r, 5)[:20])) }, status.FrameSize},
		{"41 too much before the answer", func(_ *word, own int64) []byte {
			return bytes.Repeat(strmData(own+2, 6, strings.Repeat("x", 100<<10)), 11)
		}, status.FlowControl},
		{"103 feedback of more than was sent", func(r *word, own int64) []byte {
			return join(strmData(own, 5, string(answer(r, 5, 6))), strmFeedback(own, 5, 1))
		}, status.FlowControl},
		{"02 something else", func(*word, int64) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n") }, status.Protocol},
	} {
		t.Run(row.name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{Limits: targetLimits()}, func(p *brpcPeer, c *kernel.Client) {
				ss, err := c.OpenN(context.Background(), "m", nil, make([]kernel.StreamOptions, 2)...)
				if err != nil {
					t.Fatal(err)
				}
				k := c.Conns()[0]
				synctest.Wait()
				r := p.request(0)
				_ = p.say(row.say(r, r.streams()[0]))
				synctest.Wait()
				var ce *status.ConnError
				for i, s := range ss {
					_, err := s.Receive(context.Background())
					if !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) || !errors.As(err, &ce) || ce.Code != row.code {
						t.Errorf("stream %d ended with %v, want a connection's end by %v", i, err, row.code)
					}
				}
				_ = p.nc.Close()
				<-k.Done()
			})
		})
	}
}

// A server that establishes more than was asked for is told to let it go, and so
// is one that answers a call with a stream.
func TestBrpcServersThatAnswerTooMuch(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		ctx := context.Background()
		s, err := c.Open(ctx, "m", nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.accept(0, "", 50, 51, 52)
		if len(p.frames(brpcRST, 51)) != 1 || len(p.frames(brpcRST, 52)) != 1 || len(p.frames(brpcRST, 50)) != 0 {
			t.Errorf("heard %s", p.tail())
		}
		if err := s.Send(ctx, text("x")); err != nil {
			t.Fatal(err)
		}
		called := make(chan error, 1)
		go func() {
			reply, err := c.Call(ctx, "a/b", text("x"), nil)
			reply.Release()
			called <- err
		}()
		synctest.Wait()
		meta := join(str(2, num(1, 0)), num(4, p.request(1).num(4)), brpcSettings([]int64{60}, true, true))
		p.send(packed("PRPC", meta, []byte("reply")))
		if err := <-called; err != nil {
			t.Error(err)
		}
		if got := p.texts(50); got != `["x"]` || len(p.frames(brpcRST, 60)) != 1 {
			t.Errorf("heard %s", p.tail())
		}
	})
}
