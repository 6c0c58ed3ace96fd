package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A flipper is a network path that changes one bit of what passes one way.
type flipper struct {
	up  bool // towards the server
	bit int  // of all that passes; negative: none

	mu    sync.Mutex
	sent  [2][]byte // down and up, as it was sent
	flips int
	dials int
}

func way(up bool) int {
	if up {
		return 1
	}
	return 0
}

// dial returns the client's end of a path through f to ln.
func (f *flipper) dial(ln *kerneltest.Listener) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if f.dials++; f.dials > 1 {
			return nil, syscall.ECONNREFUSED
		}
		near, client := conn.Pipe()
		far, err := ln.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		go f.relay(far, near, true)
		go f.relay(near, far, false)
		return client, nil
	}
}

// relay passes bytes on until the path ends.
func (f *flipper) relay(dst, src net.Conn, up bool) {
	p := make([]byte, 4<<10)
	for {
		n, err := src.Read(p)
		f.pass(p[:n], up)
		if n > 0 {
			_, _ = dst.Write(p[:n])
		}
		if err != nil {
			_ = dst.Close()
			return
		}
	}
}

func (f *flipper) pass(p []byte, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := &f.sent[way(up)]
	at := f.bit/8 - len(*sent)
	*sent = append(*sent, p...)
	if f.bit >= 0 && up == f.up && at >= 0 && at < len(p) {
		p[at] ^= 1 << (f.bit % 8)
		f.flips++
	}
}

// flipped runs a session over a path that changes a bit. It returns how it ended for
// the client, nil if in order, and what is wrong with that.
func flipped(f *flipper, plain bool) (end, wrong error) {
	log := &journal{}
	srv, err := kernel.NewServer(&kernel.ServerOptions{NoChecksum: plain, Logger: log.Logger()})
	if err != nil {
		return nil, err
	}
	server := make(chan account, 1)
	srv.Handle("talk", func(ctx context.Context, s *kernel.Stream) error {
		a := take(ctx, s, func(m kernel.Message) error { return s.Send(ctx, m) })
		server <- a
		if errors.Is(a.end, io.EOF) {
			return nil
		}
		return a.end
	})
	ln := kerneltest.Listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	start := time.Now()
	client, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: f.dial(ln)}))
	if took := time.Since(start); took > time.Second {
		return nil, fmt.Errorf("to connect took %v", took)
	}
	if err != nil {
		return err, f.explained(err, "")
	}
	defer client.Close()
	a, end := exchange(client)
	if took := time.Since(start); took > time.Second {
		return end, fmt.Errorf("it took %v", took)
	}
	if err := a.check(); err != nil {
		return end, fmt.Errorf("the client: %w", err)
	}
	synctest.Wait()
	_ = srv.Close()
	select {
	case b := <-server:
		if err := b.check(); err != nil {
			return end, fmt.Errorf("the server: %w", err)
		}
	default:
		if a.n > 0 {
			return end, errors.New("an answer from a handler that did not run")
		}
	}
	return end, f.explained(end, log.String())
}

// exchange is the client's side: its account of the stream, and how the connection
// ended if that did not end in order.
func exchange(client *kernel.Client) (a account, end error) {
	ctx := context.Background()
	k, err := client.Conn(ctx)
	if err != nil { // it has ended already
		a.end = err
		return a, err
	}
	s, err := k.Open(ctx, "talk", nil)
	if err != nil {
		<-k.Done()
		a.end = err
		return a, k.Err()
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range sweepSizes {
			if m := kernel.CopyMessage(sweepMessage(i)); s.Send(ctx, m) != nil {
				m.Release()
				return
			}
			time.Sleep(time.Millisecond) // of the bubble: a record each
		}
		_ = s.CloseSend()
	}()
	a = take(ctx, s, func(m kernel.Message) error {
		m.Release()
		return nil
	})
	<-sent
	if errors.Is(a.end, io.EOF) {
		return a, nil
	}
	<-k.Done()
	return a, k.Err()
}

// startLen is how long the magic and the record of the first frame are.
func startLen(b []byte) int {
	at := len(native.Magic)
	return at + 8 + int(b[at]) + int(b[at+1])<<8 + int(b[at+2])<<16
}

// explained returns an error if a bit was changed and neither side says so: the
// client by end, the server by its log. A flipped bit of the magic has no text.
func (f *flipper) explained(end error, log string) error {
	if f.bit < 8*len(native.Magic) {
		return nil
	}
	for _, c := range []kernel.Code{kernel.CodeChecksum, kernel.CodeProtocol, kernel.CodeVersion, kernel.CodeFrameSize} {
		var ce *kernel.ConnError
		if errors.Is(end, &kernel.ProtocolError{Code: c}) || errors.As(end, &ce) && ce.Code == c || strings.Contains(log, ": "+c.String()+": ") {
			return nil
		}
	}
	return fmt.Errorf("neither side says why; the server's log: %s", log)
}

// Every bit of both HELLOs, with and without records behind them, and every bit of a
// session's first kilobyte with records, is changed on its way, one at a time: the
// connection ends and says why, within a second, and neither side takes what came for an end
// in order or for what was sent.
func TestEveryFlippedBitOfASessionEndsIt(t *testing.T) {
	stride := 1
	switch {
	case testing.Short():
		stride = 61
	case raceEnabled:
		stride = 29
	}
	for _, plain := range []bool{false, true} {
		intact := flipper{bit: -1}
		synctest.Test(t, func(t *testing.T) {
			if end, err := flipped(&intact, plain); end != nil || err != nil {
				t.Fatalf("with nothing changed: %v, %v", end, err)
			}
		})
		for _, up := range []bool{false, true} {
			most := 1 << 10
			if plain {
				most = startLen(intact.sent[way(up)])
			}
			if n := len(intact.sent[way(up)]); n < most {
				t.Fatalf("a session of %d bytes, up=%t", n, up)
			}
			for bit := way(up); bit < 8*most; bit += stride {
				synctest.Test(t, func(t *testing.T) {
					f := flipper{up: up, bit: bit}
					if end, err := flipped(&f, plain); err != nil || end == nil || f.flips != 1 {
						t.Fatalf("byte %d, bit %d, up=%t, plain=%t: ended with %v; %v", bit/8, bit%8, up, plain, end, err)
					}
				})
			}
		}
	}
}
