package relay

import (
	"io"
	"net"
	"testing"
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
