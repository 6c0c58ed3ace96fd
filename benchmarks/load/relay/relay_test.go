package relay

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo serves until the test ends.
func echo(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func dial(t *testing.T, r *Relay) net.Conn {
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func roundTrip(c net.Conn) (time.Duration, error) {
	start := time.Now()
	if _, err := c.Write([]byte("ping")); err != nil {
		return 0, err
	}
	p := make([]byte, 4)
	_, err := io.ReadFull(c, p)
	return time.Since(start), err
}

func TestRelay(t *testing.T) {
	r, err := New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a, b := dial(t, r), dial(t, r)
	for _, c := range []net.Conn{a, b} {
		if _, err := roundTrip(c); err != nil {
			t.Fatal(err)
		}
	}

	r.Delay(20 * time.Millisecond)
	if d, err := roundTrip(a); err != nil || d < 40*time.Millisecond {
		t.Errorf("with 20ms each way: %v, %v", d, err)
	}
	r.Delay(0)
	d, err := roundTrip(a)
	for range 50 { // one is enough: others may want the machine
		if err != nil || d < 20*time.Millisecond {
			break
		}
		d, err = roundTrip(a)
	}
	if err != nil || d > 20*time.Millisecond {
		t.Errorf("without delay again: %v, %v", d, err)
	}

	if n := r.Kill(0.5); n != 1 {
		t.Errorf("killed %d of 2", n)
	}
	_, errA := roundTrip(a)
	_, errB := roundTrip(b)
	if (errA == nil) == (errB == nil) {
		t.Errorf("one of two should be reset: %v, %v", errA, errB)
	}
}

func TestTheEndOfAConnectionIsPassedOn(t *testing.T) {
	r, err := New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := dial(t, r)
	if _, err := c.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if p, err := io.ReadAll(c); err != nil || string(p) != "bye" {
		t.Errorf("%q, %v", p, err)
	}
}

// What is held back is what a path of that length would hold, not less: a sender that does not
// wait has as much on its way as a direction holds, before the first byte arrives.
func TestAPathHolds64MiB(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r, err := New(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Delay(time.Hour)
	c := dial(t, r)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	p := make([]byte, 1<<20)
	for n := range maxHeld / len(p) {
		if _, err := c.Write(p); err != nil {
			t.Fatalf("%d MiB are on their way, then %v", n, err)
		}
	}
}

// No more than that is taken.
func TestAHoldIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHold()
		var pushed atomic.Int32
		go func() {
			for range 3 {
				h.push(chunk{p: make([]byte, maxHeld/2)})
				pushed.Add(1)
			}
			h.end()
		}()
		synctest.Wait()
		if n := pushed.Load(); n != 2 {
			t.Errorf("%d halves were pushed", n)
		}
		for n := range int32(3) {
			if _, ok := h.pop(); !ok {
				t.Fatalf("there are %d chunks", n)
			}
			synctest.Wait()
			if got := pushed.Load(); got != 3 {
				t.Errorf("%d halves were pushed", got)
			}
		}
		if _, ok := h.pop(); ok {
			t.Error("a chunk after the last")
		}
	})
}

func TestCeiling(t *testing.T) {
	const delay = 20 * time.Millisecond
	rate, err := Ceiling(t.Context(), delay)
	// Less would be what a window of 100 KiB lets through: a busy machine does more.
	if err != nil || rate < 100<<10/(2*delay.Seconds()) {
		t.Errorf("%.0f bytes a second, %v", rate, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ceiling(ctx, time.Hour); err != context.Canceled {
		t.Errorf("the error of a measurement that is given up is %v", err)
	}
}
