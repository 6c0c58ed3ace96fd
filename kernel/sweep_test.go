package kernel_test

import (
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
}

// dial returns the client's end of a path through c to ln.
func (c *cutter) dial(ln *kerneltest.Listener) dialer {
	dial := pathTo(ln, c.pass)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &cutEnd{nc, c}, nil
	}
}

// pass counts the bytes of p, one way, and returns those that get through.
func (c *cutter) pass(p []byte, up bool) (through []byte, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := &c.toDown
	if up {
		count = &c.toUp
	}
	if c.after >= 0 && up == c.up && *count+len(p) >= c.after {
		p = p[:c.after-*count]
		c.isCut = true
	}
	*count += len(p)
	return p, c.isCut
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

// sweep runs a session over a path that c cuts, and checks both sides.
func sweep(c *cutter) (complete bool, err error) {
	srv, err := serveTalk(quietServer(&kernel.ServerOptions{NoChecksum: c.plain}))
	if err != nil {
		return false, err
	}
	defer srv.stop()
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a, err := talk(ctx, c, srv.ln)
	if took := time.Since(start); took > 10*time.Second {
		return false, fmt.Errorf("it took %v", took)
	}
	if err != nil || a == nil {
		return false, err
	}
	return errors.Is(a.end, io.EOF), srv.check(*a)
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
	a := exchange(ctx, s)
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
