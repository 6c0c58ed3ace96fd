package conn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestPipeCarriesBytesInOrderBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		want := make([]byte, 3*pipeBuffer+17)
		for i := range want {
			want[i] = byte(i * 7)
		}
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			go func() {
				if n, err := way[0].Write(want); n != len(want) || err != nil {
					t.Errorf("wrote %d of %d: %v", n, len(want), err)
				}
				_ = way[0].(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := io.ReadAll(way[1])
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
			}
		}
		_, _ = a.Close(), b.Close()
	})
}

func TestPipeWriterWaitsWhenTheBufferIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer b.Close()
		defer a.Close()
		done := make(chan struct{})
		go func() {
			_, _ = a.Write(make([]byte, pipeBuffer+1))
			close(done)
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("more was written than the buffer holds")
		default:
		}
		if _, err := b.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		<-done
	})
}

func TestPipeEndsWakeTheirWaiters(t *testing.T) {
	full := func(c net.Conn) { _, _ = c.Write(make([]byte, pipeBuffer)) }
	for name, c := range map[string]struct {
		wait func(a net.Conn) error
		end  func(a, b net.Conn)
		want error
	}{
		"read, peer closes":        {read1, func(_, b net.Conn) { b.Close() }, io.EOF},
		"read, we close":           {read1, func(a, _ net.Conn) { a.Close() }, net.ErrClosed},
		"read, deadline":           {read1, func(a, _ net.Conn) { _ = a.SetReadDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
		"read, deadline past":      {read1, func(a, _ net.Conn) { _ = a.SetDeadline(time.Now().Add(-time.Second)) }, os.ErrDeadlineExceeded},
		"write full, peer closes":  {write1, func(_, b net.Conn) { b.Close() }, io.ErrClosedPipe},
		"write full, we close":     {write1, func(a, _ net.Conn) { a.Close() }, net.ErrClosed},
		"write full, deadline":     {write1, func(a, _ net.Conn) { _ = a.SetWriteDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
		"write after half a close": {write1, func(a, _ net.Conn) { _ = a.(*pipeEnd).CloseWrite() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				full(a)
				got := make(chan error, 1)
				go func() { got <- c.wait(a) }()
				synctest.Wait()
				if len(got) > 0 {
					t.Fatal("did not wait:", <-got)
				}
				c.end(a, b)
				if err := <-got; !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				_, _ = a.Close(), b.Close()
			})
		})
	}
}

func read1(c net.Conn) error  { _, err := c.Read(make([]byte, 1)); return err }
func write1(c net.Conn) error { _, err := c.Write(make([]byte, 1)); return err }

func TestPipeDeliversWhatCameBeforeTheEnd(t *testing.T) {
	a, b := Pipe()
	if _, err := a.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	got, err := io.ReadAll(b)
	if string(got) != "last words" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.Write([]byte("nobody")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a closed peer: %v", err)
	}
	_ = b.Close()
}

func TestPipeDeadlineCanBeMovedAndTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer b.Close()
		defer a.Close()
		start := time.Now()
		_ = a.SetReadDeadline(start.Add(time.Second))
		_ = a.SetReadDeadline(start.Add(3 * time.Second))
		if err := read1(a); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v, want a deadline after 3s", err, time.Since(start))
		}
		_ = a.SetReadDeadline(time.Time{})
		_, _ = b.Write([]byte("x"))
		if err := read1(a); err != nil {
			t.Error("read without a deadline:", err)
		}
	})
}
