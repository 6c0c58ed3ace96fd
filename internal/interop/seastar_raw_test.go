package interop

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// What is here speaks Seastar's wire by hand, byte by byte.

// Features of a hello.
const (
	rawCompress     = 0
	rawConnectionID = 2
	rawStreamParent = 3
	rawIsolation    = 4
)

// rawHello is a hello of one feature for each pair of number and data.
func rawHello(features ...any) []byte {
	var rs []byte
	for i := 0; i < len(features); i += 2 {
		data := features[i+1].(string)
		rs = binary.LittleEndian.AppendUint32(rs, uint32(features[i].(int)))
		rs = append(binary.LittleEndian.AppendUint32(rs, uint32(len(data))), data...)
	}
	h := binary.LittleEndian.AppendUint32([]byte("SSTARRPC"), uint32(len(rs)))
	return append(h, rs...)
}

func rawID(id uint64) string { return string(binary.LittleEndian.AppendUint64(nil, id)) }

// readRawHello reads a hello and returns its features.
func readRawHello(t testing.TB, r io.Reader) map[uint32]string {
	t.Helper()
	head := make([]byte, 12)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, binary.LittleEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	fs := map[uint32]string{}
	for len(p) > 0 {
		n := 8 + binary.LittleEndian.Uint32(p[4:])
		fs[binary.LittleEndian.Uint32(p)] = string(p[8:n])
		p = p[n:]
	}
	return fs
}

// deafSeastar is a client of a server that answers hellos and reads nothing after
// them.
func deafSeastar(t *testing.T) *kernel.Client {
	t.Helper()
	var peers []net.Conn
	o := &kernel.ClientOptions{
		Protocols: []frame.Protocol{&seastar.Protocol{}},
		Logger:    slog.New(slog.DiscardHandler),
		Dial: func(context.Context, string, string) (net.Conn, error) {
			near, far := conn.Pipe()
			peers = append(peers, far)
			id := uint64(len(peers)) << 16
			go func() {
				readRawHello(t, far)
				_, _ = far.Write(rawHello(rawConnectionID, rawID(id)))
			}()
			return near, nil
		},
	}
	client := testkit.Must[*kernel.Client](t)(kernel.Dial(t.Context(), "seastar://memory:0", o))
	t.Cleanup(func() {
		_ = client.Close()
		for _, nc := range peers {
			_ = nc.Close()
		}
	})
	return client
}

// A stream that has failed does not wait for a peer that does not read, not even to
// have its connection closed.
func TestSeastarAbortEndsAStreamWhosePeerDoesNotRead(t *testing.T) {
	for name, abort := range map[string]func(s *kernel.Stream, cancel func()){
		"Abort":             func(s *kernel.Stream, _ func()) { s.Abort(status.Cancelled, "enough") },
		"the stream's life": func(_ *kernel.Stream, cancel func()) { cancel() },
		"after CloseReceive": func(s *kernel.Stream, _ func()) {
			s.CloseReceive(status.OK)
			s.Abort(status.Cancelled, "enough")
		},
		"Close": func(s *kernel.Stream, _ func()) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.Close(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := deafSeastar(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s := testkit.Must[*kernel.Stream](t)(client.Open(ctx, "", nil))
				for {
					m := sized(64<<10, 'x')
					if err := s.TrySend(m); err != nil {
						m.Release()
						break
					}
					synctest.Wait()
				}
				time.Sleep(time.Hour) // not to read is its right
				ok(t, s.Err())
				abort(s, cancel)
				time.Sleep(time.Second)
				if s.Err() == nil || s.Conn().Err() == nil {
					t.Errorf("the stream's error is %v, its connection's %v", s.Err(), s.Conn().Err())
				}
			})
		})
	}
}

// A connection for a stream that goes away in its handshake leaves its place to
// others.
func TestSeastarStreamsThatNeverBeginTakeNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 2
		tg := newTarget(t, true, kernel.ServerOptions{
			Protocols: []frame.Protocol{native.Protocol{}, &seastar.Protocol{}},
			Limits:    kernel.Limits{MaxStreams: streams},
			Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
				if string(p.Token) == "slow" {
					time.Sleep(time.Second) // until its client has gone
				}
				return nil, nil
			},
		})
		parent := tg.Connect()
		defer parent.Close()
		ok(t, second(parent.Write(rawHello())))
		id := readRawHello(t, parent)[rawConnectionID]
		for range 10 * streams {
			nc := tg.Connect()
			ok(t, second(nc.Write(rawHello(rawStreamParent, id, rawIsolation, "slow"))))
			synctest.Wait() // all of it was read
			_ = nc.Close()
			time.Sleep(2 * time.Second)
		}
		nc := tg.Connect()
		defer nc.Close()
		ok(t, second(nc.Write(rawHello(rawStreamParent, id))))
		if fs := readRawHello(t, nc); len(fs[rawConnectionID]) != 8 {
			t.Errorf("a stream is answered %v", fs)
		}
	})
}

// A connection has so many streams, from before their clients hear of them until their
// connections have ended; a few more than are allowed, for those that are about to end.
func TestSeastarStreamsOfAConnectionAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 2
		tg := newTarget(t, true, kernel.ServerOptions{
			Protocols: []frame.Protocol{native.Protocol{}, &seastar.Protocol{}},
			Limits:    kernel.Limits{MaxStreams: streams},
		})
		parent := tg.Connect()
		defer parent.Close()
		ok(t, second(parent.Write(rawHello())))
		id := readRawHello(t, parent)[rawConnectionID]
		stream := func() net.Conn {
			nc := tg.Connect()
			t.Cleanup(func() { _ = nc.Close() })
			ok(t, second(nc.Write(rawHello(rawStreamParent, id))))
			return nc
		}
		var last net.Conn
		for range 4 * streams {
			last = stream()
			readRawHello(t, last)
		}
		refused := func() {
			t.Helper()
			if n, err := stream().Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Errorf("one more reads %d bytes, %v", n, err)
			}
		}
		refused()
		_ = last.Close()
		synctest.Wait()
		readRawHello(t, stream())
		refused()
	})
}

// second is the second of two values.
func second[A, B any](_ A, b B) B { return b }

// A compressed frame is kept until all of it is there. Peers that never send its end
// can't have the server hold more than its budget.
func TestSeastarHostileUnreadStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := targetLimits()
		l.Memory = 8 << 20
		tg := newTarget(t, true, kernel.ServerOptions{
			Protocols: []frame.Protocol{native.Protocol{}, &seastar.Protocol{Compress: []string{seastar.LZ4}}}, Limits: l,
		})
		tg.ConnectHonest()
		part := binary.LittleEndian.AppendUint32(nil, 1<<20)
		part = append(part, make([]byte, 900<<10)...)
		const peers = 20
		var gone atomic.Int32
		for range peers {
			nc := tg.Connect()
			defer nc.Close()
			ok(t, second(nc.Write(rawHello(rawCompress, "LZ4"))))
			if fs := readRawHello(t, nc); fs[rawCompress] != "LZ4" {
				t.Fatalf("the answer is %v", fs)
			}
			go func() {
				_, _ = nc.Write(part)
				_, _ = io.Copy(io.Discard, nc) // until the server ends it
				gone.Add(1)
			}()
		}
		time.Sleep(time.Second)
		left := peers - int(gone.Load())
		if left == 0 || left > 8 {
			t.Errorf("%d of %d connections are left, the budget is for 8", left, peers)
		}
		if n := tg.Srv.Stats().Evicted; int(n) != peers-left {
			t.Errorf("%d were evicted, %d are counted", peers-left, n)
		}
		tg.Unharmed()
	})
}

// The program's Isolate is a hook like Authenticate: its faults are its connection's.
func TestSeastarIsolateAffectsNoOtherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		isolate := func(_ context.Context, cookie []byte) error {
			switch string(cookie) {
			case "panic":
				panic("no")
			case "exit":
				runtime.Goexit()
			case "stay":
				<-release
			}
			return nil
		}
		l := targetLimits()
		l.Authenticate = time.Minute
		tg := newTarget(t, true, kernel.ServerOptions{
			Protocols: []frame.Protocol{native.Protocol{}, &seastar.Protocol{Isolate: isolate}}, Limits: l,
		})
		tg.ConnectHonest()
		say := func(cookie string) net.Conn {
			nc := tg.Connect()
			ok(t, second(nc.Write(rawHello(rawIsolation, cookie))))
			return nc
		}
		for _, cookie := range []string{"panic", "exit", "stay"} {
			nc := say(cookie)
			start := time.Now()
			if n, err := nc.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Errorf("%s: let in", cookie)
			}
			if d := time.Since(start); d > l.Authenticate {
				t.Errorf("%s: refused after %v", cookie, d)
			}
			_ = nc.Close()
		}
		nc := say("good")
		readRawHello(t, nc)
		_ = nc.Close()
		tg.Unharmed()

		nc = say("stay")
		defer nc.Close()
		synctest.Wait()
		start := time.Now()
		ok(t, tg.Srv.Close())
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}
