package kernel_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// repeat sends b n times, a thousand at once, until the server ends the connection.
func repeat(n int, b []byte) func(r *raw) {
	return func(r *raw) {
		for n := n; n > 0; n -= 1000 {
			if r.write(bytes.Repeat(b, min(n, 1000))) != nil {
				return
			}
		}
	}
}

// drips sends one byte of b every gap, for as long as the connection is open.
func drips(b []byte, gap time.Duration) func(r *raw) {
	return func(r *raw) {
		for i := range b {
			time.Sleep(gap)
			if r.over() != nil || r.write(b[i:i+1]) != nil {
				return
			}
		}
	}
}

func ping(v uint64) []byte { return frames(frame.Frame{Kind: frame.Ping, Value: v}) }

func TestHostileFloods(t *testing.T) {
	runHostile(t, []hostileRow{
		{name: "50 pings, and reading the answers", do: after(opens("stuck"), repeat(1001, ping(1))),
			ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "50 as many pings as are allowed", do: after(opens("stuck"), repeat(1000, ping(1))), ends: nothing, alloc: 2 << 20},
		{name: "51 pings that are never read", quiet: true, alloc: 2 << 20, ends: connection, code: status.EnhanceYourCalm,
			do: after(opens("stuck"), repeat(1001, ping(1)))},
		{name: "51 pings with data between them, never read", quiet: true, alloc: 8 << 20, ends: stalled, code: status.EnhanceYourCalm, logged: "answers are unread",
			do: after(opens("source"), fillPipe, pingsWithData)},
		{name: "51 answers that nobody asked for", do: says(bytes.Repeat(frames(frame.Frame{Kind: frame.Pong, Value: 99}), 1100)),
			ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "53 refusals that are never read", quiet: true, alloc: 8 << 20, ends: stalled, code: status.EnhanceYourCalm, logged: "answers are unread",
			do: after(opens("source"), fillPipe, func(r *raw) { manyRefused(r, 2100) })},
		{name: "54 tiny grants", do: after(opens("stuck"), grants(1, 1100)), ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "54 tiny grants to the connection", do: after(opens("stuck"), grants(0, 1100)), ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "54 reports of nothing read", do: after(opens("stuck"), repeat(1100, frames(frame.Frame{Kind: frame.Read}))), ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "54 more read than was sent", do: says(frames(frame.Frame{Kind: frame.Read, Value: 1 << 40})), ends: connection, code: status.Protocol},
		{name: "54 frames for streams that have ended", do: after(says(frames(reset)), repeat(1100, frames(frame.Frame{Kind: frame.Stop, Stream: 1}))),
			ends: connection, code: status.EnhanceYourCalm, alloc: 2 << 20},
		{name: "54 GOAWAYs", do: says(bytes.Repeat(frames(goAway), 17)), ends: connection, code: status.EnhanceYourCalm},
		{name: "58 much is asked for and nothing read", quiet: true, do: opens("source"), after: 50 * time.Second,
			ends: stalled, code: status.WriteStall, logged: "the peer does not read", alloc: 16 << 20},
		{name: "58 the same, with signs of life", quiet: true, do: func(r *raw) {
			r.open("source")
			repeatedly(r, time.Second, 60, frames(frame.Frame{Kind: frame.Credit, Stream: 1}))
		}, ends: stalled, code: status.WriteStall, logged: "the peer does not read", alloc: 16 << 20},
		{name: "59 a byte read a second", quiet: true, do: func(r *raw) {
			r.open("source")
			p := make([]byte, 1)
			for range 60 {
				time.Sleep(time.Second)
				if _, err := r.nc.Read(p); err != nil {
					return
				}
				r.take(p)
			}
		}, ends: stalled, code: status.WriteStall, logged: "the peer does not read", alloc: 16 << 20},
		{name: "60 a frame byte by byte", do: after(opens("stuck"), drips(data(1, make([]byte, 100)), time.Second)),
			ends: connection, code: status.DeadlineExceeded},
		{name: "60 a large frame byte by byte", do: after(opens("stuck"), sends(head(5000, typeData, 1)), drips(make([]byte, 100), time.Second)),
			ends: connection, code: status.DeadlineExceeded},
		{name: "60 frames that each take 20 s", do: after(opens("stuck"), drips(join(ping(1), ping(2)), 1250*time.Millisecond)), ends: nothing},
		{name: "75 many frames in one piece", do: says(data(1, []byte("a")), data(1, nil), first(1, 2, []byte("b")), more(1, []byte("c"), true), frames(eos)),
			ends: nothing, check: hears("", "a", "", "bc")},
		{name: "74 the same byte by byte", do: after(opens("echo"), func(r *raw) {
			for _, b := range join(data(1, []byte("a")), data(1, nil), first(1, 2, []byte("b")), more(1, []byte("c"), true), frames(eos)) {
				_ = r.write([]byte{b})
				synctest.Wait()
			}
		}), ends: nothing, check: hears("", "a", "", "bc")},
	})
}

// pingsWithData sends a little data with every ping, on many streams that are
// read, for two seconds: pings beside data are not counted, their answers are.
func pingsWithData(r *raw) {
	for range 25 {
		id := r.next
		r.next += 2
		if r.write(frames(openFrame(id, "sink"))) != nil || r.write(bytes.Repeat(join(data(id, nil), ping(1)), 100)) != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// fillPipe waits until a source has filled what the connection may hold, so that
// answers to what follows can't be written either.
func fillPipe(r *raw) {
	if r.tg.Bubble {
		synctest.Wait()
	}
}

// manyRefused opens a stream of an unknown method every millisecond.
func manyRefused(r *raw, n int) {
	for range n {
		time.Sleep(time.Millisecond)
		id := r.next
		r.next += 2
		if r.write(frames(openFrame(id, "nothing"))) != nil {
			return
		}
	}
}

func grants(id uint64, n int) func(r *raw) {
	return func(r *raw) {
		for i := range n {
			if r.write(frames(credit(id, 1<<20+uint64(i)))) != nil {
				return
			}
		}
	}
}

func repeatedly(r *raw, every time.Duration, n int, b []byte) {
	for range n {
		time.Sleep(every)
		if r.over() != nil || r.write(b) != nil {
			return
		}
	}
}

// hears checks the messages that came on stream 1; the first want is dropped.
func hears(_ string, want ...string) func(r *raw) {
	return func(r *raw) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var got []string
		for _, h := range r.heard {
			if h.kind == frame.Data && h.stream == 1 {
				got = append(got, string(h.data))
			}
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			r.t.Errorf("heard %q, want %q", got, want)
		}
	}
}

// Rows 1 to 3, 13, 15, 16, 19 and 102: bad input before the end of the hello ends the
// connection. It costs a few KiB, and is answered by at most a GOAWAY.
func TestHostileHandshake(t *testing.T) {
	payload := func(f func(s *frame.Settings)) []byte {
		s := hello()
		s.MinVersion, s.MaxVersion = 1, 1
		f(&s)
		return frames(frame.Frame{Kind: frame.Hello, Settings: s})[8:]
	}
	with := func(settings ...[]byte) []byte { // a hello of settings, encoded
		p := join(settings...)
		return greeting(head(len(p), 13, 0), p)
	}
	settings := func(f func(s *frame.Settings)) []byte { return with(payload(f)) }
	usual := payload(func(*frame.Settings) {})
	unknown := func(n int) []byte { return bytes.Repeat([]byte{99, 1, 0}, n) } // unknown settings
	changed := func(b []byte, at int) []byte {
		b[at] ^= 1
		return b
	}
	for _, row := range []struct {
		name  string
		say   []byte
		ends  ends
		code  status.Code
		after time.Duration
		drip  bool
	}{
		{name: "01 not a byte", ends: dropped, after: 5 * time.Second},
		{name: "02 another magic", say: []byte("SLUICE\n\nxxxxxxxxxxxxxx"), ends: dropped},
		{name: "02 HTTP", say: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ends: dropped},
		{name: "02 TLS on a plain port", say: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ends: dropped},
		{name: "03 a byte a second", say: settings(func(*frame.Settings) {}), ends: dropped, drip: true},
		{name: "03 half a hello and silence", say: settings(func(*frame.Settings) {})[:20], ends: dropped, after: 5 * time.Second},
		{name: "08 a hello beyond 64 KiB", say: join([]byte(native.Magic), recordHead(64<<10+9), make([]byte, 4), head(64<<10+1, 13, 0)), ends: connection, code: status.FrameSize},
		{name: "13 versions of the future", say: settings(func(s *frame.Settings) { s.MinVersion, s.MaxVersion = 2, 3 }), ends: connection, code: status.Version},
		{name: "13 this version and those of the future", say: settings(func(s *frame.Settings) { s.MaxVersion = 1 << 40 }), ends: nothing},
		{name: "13 no version", say: settings(func(s *frame.Settings) { s.MinVersion, s.MaxVersion = 0, 0 }), ends: connection, code: status.Protocol},
		{name: "13 versions from the highest to the lowest", say: settings(func(s *frame.Settings) { s.MinVersion = 2 }), ends: connection, code: status.Protocol},
		{name: "15 data before the hello", say: greeting(data(1, []byte("x"))), ends: connection, code: status.Protocol},
		{name: "15 an open before the hello", say: greeting(frames(openFrame(1, "echo"))), ends: connection, code: status.Protocol},
		{name: "15 an open in the record of the hello", say: greeting(head(len(usual), 13, 0), usual, frames(openFrame(1, "echo"))), ends: connection, code: status.Protocol},
		{name: "15 a hello without a record", say: join([]byte(native.Magic), head(len(usual), 13, 0), usual), ends: connection, code: status.Checksum},
		{name: "16 unknown settings", say: with(usual, unknown(20)), ends: nothing},
		{name: "16 33 settings", say: with(unknown(33)), ends: connection, code: status.EnhanceYourCalm},
		{name: "16 fragments of 0 bytes", say: settings(func(s *frame.Settings) { s.MaxFragment = 0 }), ends: connection, code: status.Protocol},
		{name: "16 messages of 4 GiB", say: settings(func(s *frame.Settings) { s.MaxMessage = 1 << 32 }), ends: connection, code: status.Protocol},
		{name: "16 a number twice", say: with(usual, []byte{5, 1, 9}), ends: nothing},
		{name: "16 bytes after a number", say: with(usual, []byte{5, 2, 9, 0}), ends: connection, code: status.Protocol},
		{name: "16 checksums of an unknown kind", say: with(usual, []byte{2, 1, 2}), ends: connection, code: status.Protocol},
		{name: "19 no initial credit", say: settings(func(s *frame.Settings) { s.InitialCredit = 0 }), ends: connection, code: status.FlowControl},
		{name: "19 no connection credit", say: settings(func(s *frame.Settings) { s.ConnCredit = 0 }), ends: connection, code: status.FlowControl},
		{name: "20 a length that was changed", say: changed(settings(func(*frame.Settings) {}), 9), ends: connection, code: status.Checksum},
		{name: "20 a sum that was changed", say: changed(settings(func(*frame.Settings) {}), 12), ends: connection, code: status.Checksum},
		{name: "20 a setting that was changed", say: changed(settings(func(*frame.Settings) {}), 30), ends: connection, code: status.Checksum},
		{name: "19 initial credit beyond 2^31", say: settings(func(s *frame.Settings) { s.InitialCredit = 1 << 31 }), ends: connection, code: status.FlowControl},
		{name: "19 connection credit beyond 2^31", say: settings(func(s *frame.Settings) { s.ConnCredit = 1 << 31 }), ends: connection, code: status.FlowControl},
		{name: "102 HTTP/2", say: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ends: dropped},
		{name: "102 brpc", say: []byte("PRPC\x00\x00\x00\x10\x00\x00\x00\x08"), ends: dropped},
		{name: "102 Seastar", say: []byte("SSTARRPC\x00\x00\x00\x00"), ends: dropped},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{})
				tg.ConnectHonest()
				r := tg.connectSilently()
				start := time.Now()
				if got := allocated(func() {
					if row.drip {
						drips(row.say, time.Second)(r)
					} else if row.say != nil {
						_ = r.write(row.say)
					}
					time.Sleep(row.after)
					synctest.Wait()
				}); got > 256<<10 {
					t.Errorf("%d bytes were allocated", got)
				}
				r.handshakeEnded(row.ends, row.code)
				if d := time.Since(start); d > 6*time.Second {
					t.Errorf("it took %v", d)
				}
				tg.Unharmed()
			})
		})
	}
}

// connectSilently connects and listens; it sends nothing.
func (tg *target) connectSilently() *raw {
	r := tg.unheard()
	go r.listen()
	return r
}

func (r *raw) handshakeEnded(want ends, code status.Code) {
	r.t.Helper()
	h, told := r.find(frame.GoAway, 0)
	_, accepted := r.find(frame.Hello, 0)
	switch {
	case want == nothing && (r.over() != nil || !accepted):
		r.t.Errorf("not accepted: %s", r.tail())
	case want != nothing && (r.over() == nil || accepted):
		r.t.Errorf("accepted: %s", r.tail())
	case want == dropped && r.bytesRead() > 0:
		r.t.Errorf("%d bytes of an answer: %s", r.bytesRead(), r.tail())
	case want == connection && (!told || h.code != code):
		r.t.Errorf("no GOAWAY with %v: %s", code, r.tail())
	}
}

// Row 1: a port scan leaves no line in the log at the usual level.
func TestHostileScanIsNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		_ = tg.Connect().Close()
		synctest.Wait()
		if s := tg.Log.String(); s != "" || tg.Srv.Stats().Failed != 1 {
			t.Errorf("%+v, logged %q", tg.Srv.Stats(), s)
		}
	})
}

// Row 62: connections beyond a limit are closed at once, without a GOAWAY; they are
// counted, and one that ends makes room.
func TestHostileConnectionsBeyondTheLimits(t *testing.T) {
	for name, l := range map[string]kernel.Limits{
		"in all": {MaxConns: 3}, "from one address": {MaxConnsPerAddr: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
				tg.ConnectHonest()
				synctest.Wait() // its handshake is counted out
				held := []*raw{tg.unheard(), tg.unheard()}
				for _, r := range held {
					go r.listen()
					if _, err := r.nc.Write([]byte(native.Magic)); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				r := tg.connectSilently()
				synctest.Wait()
				if r.over() == nil || r.bytesRead() > 0 || held[0].over() != nil || held[1].over() != nil {
					t.Errorf("one too many: %v; those before: %v, %v", r.over(), held[0].over(), held[1].over())
				}
				if n := tg.Srv.Stats().Refused; n != 1 {
					t.Errorf("%d were refused", n)
				}
				_ = held[0].nc.Close()
				synctest.Wait()
				tg.attack(hello()).echoes()
				tg.Unharmed()
			})
		})
	}
}

// Row 62: a handshake beyond the limit waits until one before it is over, or has lasted a
// second and gives way. The server's end ends the wait.
func TestHostileHandshakesBeyondTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.MaxHandshakes, l.Handshake = 2, time.Minute
		tg := newTarget(t, true, kernel.ServerOptions{Limits: l})
		tg.ConnectHonest()
		synctest.Wait() // its handshake is counted out
		first := tg.connectSilently()
		second := tg.connectSilently()
		start := time.Now()
		time.AfterFunc(300*time.Millisecond, func() { _ = first.nc.Close() })
		tg.attack(hello()).echoes()
		if d := time.Since(start); d != 300*time.Millisecond || second.over() != nil {
			t.Errorf("the handshake took %v, one before it is %v", d, second.over())
		}
		third := tg.connectSilently()
		tg.attack(hello()).echoes()
		synctest.Wait()
		if d := time.Since(start); d != time.Second || second.over() == nil || third.over() != nil {
			t.Errorf("after %v those before are %v, %v", d, second.over(), third.over())
		}
		tg.Unharmed()
		if n := tg.Srv.Stats().Refused; n != 0 {
			t.Errorf("%d were refused", n)
		}
		tg.connectSilently()
		waits := tg.connectSilently()
		synctest.Wait()
		if err := tg.Srv.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if waits.over() == nil {
			t.Error("the server has ended, and a connection waits for its handshake")
		}
	})
}

// Row 65: among many streams of a connection the one that is not read waits, and
// no other.
func TestHostileSlowStreamHoldsUpItselfOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1100}})
		tg.ConnectHonest()
		ctx := context.Background()
		slow, err := tg.Client.Open(ctx, "source", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := slow.Accepted(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for range 1000 {
			s, err := tg.Client.Open(ctx, "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(ctx, text("x")); err != nil {
				t.Fatal(err)
			}
			m, err := s.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			m.Release()
		}
		tg.Unharmed()
	})
}

// Row 99: a peer's texts are quoted and cut in the log.
func TestHostileReasonsCannotForgeLogLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		r := tg.attack(hello())
		r.open("echo")
		evil := "x\r\nlevel=ERROR msg=forged\x1b[2J" + string(bytes.Repeat([]byte("y"), 1000))
		r.say(frame.Frame{Kind: frame.GoAway, Code: status.Internal, Reason: evil})
		other := tg.connectSilently()
		_ = other.write([]byte("\r\nlevel=ERROR msg=forged\r\n\x1b[2J"))
		time.Sleep(time.Second) // its end is waited for a little
		synctest.Wait()
		log := tg.Log.String()
		lines := bytes.Split(bytes.TrimSpace([]byte(log)), []byte("\n"))
		for _, line := range lines {
			if !bytes.HasPrefix(line, []byte("time=")) || len(line) > 700 || bytes.ContainsAny(line, "\r\x1b") {
				t.Errorf("a line of the log: %q", line)
			}
		}
		if len(lines) != 2 {
			t.Errorf("%d lines: %s", len(lines), log)
		}
	})
}
