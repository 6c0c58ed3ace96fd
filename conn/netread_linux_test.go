package conn

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A reader of a socket has a buffer from when something has come until it has been decoded: none
// while it waits, and a large one only where much comes.
func TestAReaderOfASocketHasABufferOnlyWhileThereIsSomething(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	src, ok := newSocketReader(nc)
	if !ok {
		t.Fatal("TCP is no socket")
	}
	r := src.(*socketReader)
	write := func(n int) {
		t.Helper()
		if _, err := peer.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(buffer int) int {
		t.Helper()
		p, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.buf.p) != buffer {
			t.Errorf("%d bytes were read into %d, want %d", len(p), len(r.buf.p), buffer)
		}
		r.release()
		if r.buf != nil {
			t.Error("what is read is decoded, and has a buffer")
		}
		return len(p)
	}
	waits := func() {
		t.Helper()
		if err := nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("there is something to read: %v", err)
		}
		if r.buf != nil {
			t.Errorf("a reader that waits has a buffer of %d bytes", len(r.buf.p))
		}
		if err := nc.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	waits()
	write(1)
	read(socketBuffer)
	waits()
	write(socketBuffer + 1)
	for got := 0; got < socketBuffer; {
		got += read(socketBuffer)
	}
	if r.full { // both bytes and buffer came together, as they do on loopback
		read(bulkBuffer)
		waits()
		write(1)
		read(socketBuffer)
	}
}
