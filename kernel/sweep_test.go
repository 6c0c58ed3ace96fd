package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A cutter is a network path that ends after a number of bytes one way.
type cutter struct {
	up    bool // towards the server
	after int  // bytes; negative: never
	reset bool // as a reset does, not as a FIN
	plain bool // without checksums

	mu           sync.Mutex
	toUp, toDown int
	isCut        bool
	dials        int
}

// dial returns the client's end of a path through c to ln.
func (c *cutter) dial(ln *kerneltest.Listener) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if c.dials++; c.dials > 1 {
			return nil, syscall.ECONNREFUSED
		}
		near, client := conn.Pipe()
		far, err := ln.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		go c.relay(far, near, true)
		go c.relay(near, far, false)
		return &cutEnd{client, c}, nil
	}
}

// relay passes bytes on until the path ends.
func (c *cutter) relay(dst, src net.Conn, up bool) {
	p := make([]byte, 4<<10)
	for {
		n, err := src.Read(p)
		if n = c.pass(n, up); n > 0 {
			_, _ = dst.Write(p[:n])
		}
		if c.over() || err != nil {
			_ = dst.Close()
			_ = src.Close()
			return
		}
	}
}

// pass counts n bytes one way and returns how many of them get through.
func (c *cutter) pass(n int, up bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := &c.toDown
	if up {
		count = &c.toUp
	}
	if c.after >= 0 && up == c.up && *count+n >= c.after {
		n = c.after - *count
		c.isCut = true
	}
	*count += n
	return n
}

func (c *cutter) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isCut
}

// cutEnd is the client's end, where a reset is an error of the system's.
type cutEnd struct {
	net.Conn
	c *cutter
}

func (e *cutEnd) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if err != nil && e.c.reset && e.c.over() {
		err = &net.OpError{Op: "read", Err: syscall.ECONNRESET}
	}
	return n, err
}

func (e *cutEnd) CloseWrite() error { return e.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// sweepSizes are the messages of a swept session, some 2 KiB each way.
var sweepSizes = []int{0, 1, 10, 300, 64, 5, 700, 0, 200, 33, 400, 100}

func sweepMessage(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, sweepSizes[i]) }

// A reader's account of a stream.
type account struct {
	n   int   // messages, each checked
	bad error // what was wrong with one
	end error
}

// take reads s to its end, handing each message to also.
func take(ctx context.Context, s *kernel.Stream, also func(m kernel.Message) error) (a account) {
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			a.end = err
			return a
		}
		if a.n >= len(sweepSizes) || !bytes.Equal(m.Bytes(), sweepMessage(a.n)) {
			a.bad = fmt.Errorf("message %d is %q", a.n, m.Bytes())
		}
		a.n++
		if also(m) != nil {
			m.Release()
		}
	}
}

// check tells what is wrong with an account: a message that was never sent, or a
// clean end that is none.
func (a account) check() error {
	switch {
	case a.bad != nil:
		return a.bad
	case errors.Is(a.end, io.EOF) && a.n < len(sweepSizes):
		return fmt.Errorf("a clean end after %d of %d messages", a.n, len(sweepSizes))
	case a.end == nil:
		return errors.New("no end")
	}
	return nil
}

// sweep runs a session over a path that c cuts, and checks both sides.
func sweep(c *cutter) (complete bool, err error) {
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{NoChecksum: c.plain}))
	if err != nil {
		return false, err
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a, err := talk(ctx, c, ln)
	if took := time.Since(start); took > 10*time.Second {
		return false, fmt.Errorf("it took %v", took)
	}
	if err != nil || a == nil {
		return false, err
	}
	if err := a.check(); err != nil {
		return false, fmt.Errorf("the client: %w", err)
	}
	_ = srv.Close()
	synctest.Wait()
	select {
	case b := <-server:
		if err := b.check(); err != nil {
			return false, fmt.Errorf("the server: %w", err)
		}
		return errors.Is(a.end, io.EOF), nil
	default:
		if a.n > 0 {
			return false, errors.New("an answer from a handler that did not run")
		}
	}
	return false, nil
}

// talk is the client's side. It returns nil if there was no stream.
func talk(ctx context.Context, c *cutter, ln *kerneltest.Listener) (*account, error) {
	client, err := kernel.Dial(ctx, kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: c.dial(ln)}))
	if err != nil {
		return nil, nil //nolint:nilerr // cut in the handshake
	}
	defer client.Close()
	s, err := client.Open(ctx, "talk", nil)
	if err != nil {
		return nil, nil //nolint:nilerr // cut in the handshake
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range sweepSizes {
			if m := kernel.CopyMessage(sweepMessage(i)); s.Send(ctx, m) != nil {
				m.Release()
				return
			}
			time.Sleep(time.Millisecond) // of the bubble: one record each, a session of small writes
		}
		_ = s.CloseSend()
	}()
	a := take(context.Background(), s, func(m kernel.Message) error {
		m.Release()
		return nil
	})
	<-sent
	if !errors.Is(a.end, io.EOF) && s.Err() == nil {
		return nil, fmt.Errorf("Receive ended with %v, Err is %v", a.end, s.Err())
	}
	return &a, nil
}

// The connection is cut at every byte of a recorded session, each way, with a
// FIN and with a reset: never is an end clean that is not one, never does
// anybody hang, and what was delivered is what was sent, from the start on.
func TestACutAtAnyByteIsNeverACleanEnd(t *testing.T) {
	var whole cutter
	synctest.Test(t, func(t *testing.T) {
		whole = cutter{after: -1}
		if complete, err := sweep(&whole); err != nil || !complete {
			t.Fatalf("uncut: %t, %v", complete, err)
		}
	})
	t.Logf("%d bytes up, %d down", whole.toUp, whole.toDown)
	stride := 1
	switch { // its tens of thousands of servers and clients are more than the race detector likes
	case testing.Short():
		stride = 17
	case raceEnabled:
		stride = 8
	}
	for way := range 8 {
		c := cutter{up: way&1 != 0, reset: way&2 != 0, plain: way&4 != 0}
		most := whole.toDown
		if c.up {
			most = whole.toUp
		}
		for at := way % stride; at < most; at += stride {
			synctest.Test(t, func(t *testing.T) {
				path := cutter{up: c.up, reset: c.reset, plain: c.plain, after: at}
				if _, err := sweep(&path); err != nil {
					t.Fatalf("cut at byte %d, up=%t, reset=%t, plain=%t: %v", at, c.up, c.reset, c.plain, err)
				}
			})
		}
	}
}
