package all

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

const deadline = 20 * time.Second

// forEach runs f for every peer with a server and a connection, and looks
// for goroutines left behind.
func forEach(t *testing.T, o peer.Options, f scenario) {
	forEachThat(t, o, f, func(t *testing.T, o peer.Options) {
		settle(t, "streams still served", func() (int, bool) {
			n := int(o.Serving.Load())
			return n, n == 0
		})
	})
}

// A scenario is what a test does with a connection.
type scenario func(t *testing.T, ctx context.Context, c peer.Conn, o peer.Options)

func forEachThat(t *testing.T, o peer.Options, f scenario, after func(*testing.T, peer.Options)) {
	for _, p := range Peers() {
		t.Run(p.Name(), func(t *testing.T) {
			before := runtime.NumGoroutine()
			o.Serving = new(atomic.Int64)
			withConn(t, p, o, f)
			if p.Name() != lingers {
				settle(t, "goroutines left", func() (int, bool) {
					n := runtime.NumGoroutine()
					return n, n <= before+slack
				})
			}
			after(t, o)
		})
	}
}

// slack is what libraries start once and keep: gnet's pools, quic's and
// nats's clocks.
const slack = 4

// lingers names the library that has no way to close a client's connection.
const lingers = "kitex"

func withConn(t *testing.T, p peer.Peer, o peer.Options, f scenario) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	s, err := p.Serve("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the server: %v", err)
		}
	}()
	c, err := p.Dial(ctx, s.Addr(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing the connection: %v", err)
		}
	}()
	done := make(chan struct{})
	go func() { // ends with f; if the peer is stuck, with the test's process
		defer close(done)
		f(t, ctx, c, o)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		t.Errorf("stuck after %v", deadline)
	}
}

func settle(t *testing.T, what string, ok func() (int, bool)) {
	t.Helper()
	end := time.Now().Add(5 * time.Second)
	for {
		n, good := ok()
		if good {
			return
		}
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%s: %d\n%s", what, n, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func open(t *testing.T, ctx context.Context, c peer.Conn, m peer.Mode) peer.Stream {
	t.Helper()
	s, err := c.Open(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func send(s peer.Stream, p []byte) error {
	b := s.Buf(len(p))
	copy(b, p)
	return s.Send(b)
}

// finish ends our half, wants the end of the other, and closes.
func finish(s peer.Stream) error {
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("CloseSend: %w", err)
	}
	for range 2 {
		if p, err := s.Recv(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("after the end: %d bytes, %v; want io.EOF", len(p), err)
		}
	}
	return s.Close()
}

func payload(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

var options = peer.Options{MaxMessage: 4 << 20, Streams: 64, Conns: 64}

func TestEchoOfEverySize(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 4, 5, 100, 1023, 1024, 4090, 4096, 5000, 16383, 16384, 32768, 65530, 65531, 65532, 65535, 65536, 65537, 100_000, 1 << 20}
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		s := open(t, ctx, c, peer.Echo)
		for i, n := range sizes {
			want := payload(uint64(i), n)
			if err := send(s, want); err != nil {
				t.Fatalf("size %d: %v", n, err)
			}
			got, err := s.Recv()
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: got %d bytes, %v", n, len(got), err)
			}
		}
		if err := finish(s); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStreamsAtOnce has eight streams with messages of mixed sizes in flight
// on one connection.
func TestStreamsAtOnce(t *testing.T) {
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		var wg sync.WaitGroup
		for id := range uint32(8) {
			wg.Go(func() {
				if err := exchange(ctx, c, id, 200, 8); err != nil {
					t.Errorf("stream %d: %v", id, err)
				}
			})
		}
		wg.Wait()
	})
}

// exchange sends n messages, of which ahead are in flight, and checks the
// echoes.
func exchange(ctx context.Context, c peer.Conn, id uint32, n, ahead int) error {
	s, err := c.Open(ctx, peer.Echo)
	if err != nil {
		return err
	}
	defer s.Close()
	check := peer.NewChecker(id)
	sent := 0
	for got := range n {
		for ; sent < n && sent < got+ahead; sent++ {
			b := s.Buf(peer.HeaderSize + (sent*577)%9000)
			peer.Stamp(b, id, uint64(sent))
			if err := s.Send(b); err != nil {
				return err
			}
		}
		p, err := s.Recv()
		if err != nil {
			return err
		}
		check.Check(p)
	}
	return errors.Join(check.Summary().Err(), finish(s))
}

// TestDuplex sends and receives from two goroutines.
func TestDuplex(t *testing.T) {
	o := options
	o.Duplex = true
	forEach(t, o, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		const n = 1000
		s := open(t, ctx, c, peer.Echo)
		sent := make(chan error, 1)
		go func() { sent <- sendAll(s, n) }()
		check := peer.NewChecker(1)
		for range n {
			p, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			check.Check(p)
		}
		if err := errors.Join(<-sent, check.Summary().Err(), finish(s)); err != nil {
			t.Fatal(err)
		}
	})
}

func sendAll(s peer.Stream, n int) error {
	for i := range n {
		b := s.Buf(100)
		peer.Stamp(b, 1, uint64(i))
		if err := s.Send(b); err != nil {
			return err
		}
		if i%10 == 9 {
			if err := s.Flush(); err != nil {
				return err
			}
		}
	}
	return s.Flush()
}

func TestDiscardSummary(t *testing.T) {
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		s := open(t, ctx, c, peer.Discard)
		var bytes uint64
		const n = 2000
		for i := range n {
			size := peer.HeaderSize + (i*131)%3000
			if i%500 == 499 {
				size = 1 << 20
			}
			bytes += uint64(size)
			b := s.Buf(size)
			peer.Stamp(b, 3, uint64(i))
			if err := s.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		sum := summary(t, s)
		if err := sum.Err(); err != nil || sum.Messages != n || sum.Bytes != bytes {
			t.Errorf("summary %+v, %v; want %d messages, %d bytes", sum, err, n, bytes)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the summary: %v, want io.EOF", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func summary(t *testing.T, s peer.Stream) peer.Summary {
	t.Helper()
	p, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := peer.ParseSummary(p)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestDiscardCountsFaults sends a gap and a repeat on purpose.
func TestDiscardCountsFaults(t *testing.T) {
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		s := open(t, ctx, c, peer.Discard)
		defer s.Close()
		for _, seq := range []uint64{0, 2, 2} {
			b := s.Buf(64)
			peer.Stamp(b, 3, seq)
			if err := s.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if sum := summary(t, s); sum.Lost != 1 || sum.Duplicated != 1 {
			t.Errorf("summary %+v, want one lost and one duplicated", sum)
		}
	})
}

// TestParkedStreams opens idle streams, finds the server serving all of them
// and the connection still good for others, and closes them.
func TestParkedStreams(t *testing.T) {
	scenario := func(t *testing.T, ctx context.Context, c peer.Conn, o peer.Options) {
		var streams []peer.Stream
		for range options.Streams - 1 {
			streams = append(streams, open(t, ctx, c, peer.Park))
		}
		settle(t, "streams served", func() (int, bool) {
			n := int(o.Serving.Load())
			return n, n == len(streams)
		})
		if err := exchange(ctx, c, 1, 10, 2); err != nil {
			t.Fatal(err)
		}
		for _, s := range streams {
			if err := errors.Join(s.CloseSend(), s.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	forEachThat(t, options, scenario, func(*testing.T, peer.Options) {})
}

// TestOpenAndClose opens many streams one after the other and several at a
// time on one connection.
func TestOpenAndClose(t *testing.T) {
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		var wg sync.WaitGroup
		for id := range uint32(8) {
			wg.Go(func() {
				for range 25 {
					if err := exchange(ctx, c, id, 1, 1); err != nil {
						t.Errorf("stream %d: %v", id, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestCloseWithOpenStreams closes connection and server while a stream is open.
func TestCloseWithOpenStreams(t *testing.T) {
	forEach(t, options, func(t *testing.T, ctx context.Context, c peer.Conn, _ peer.Options) {
		s := open(t, ctx, c, peer.Echo)
		if err := send(s, []byte("once")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDialWithoutAServer(t *testing.T) {
	for _, p := range Peers() {
		t.Run(p.Name(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			if err := reach(ctx, p, "127.0.0.1:1"); err == nil {
				t.Error("a stream without a server")
			}
		})
	}
}

// reach opens a stream and waits for it to end.
func reach(ctx context.Context, p peer.Peer, addr string) error {
	c, err := p.Dial(ctx, addr, options)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Open(ctx, peer.Park)
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}
