package notify

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each state is one datagram, by path and in the abstract namespace.
func TestStates(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@sluice-notify-test-" + filepath.Base(t.TempDir())} {
		ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		t.Setenv("NOTIFY_SOCKET", path)
		for _, c := range []struct {
			tell func() error
			want string
		}{
			{func() error { return Ready("serving") }, "READY=1\nSTATUS=serving"},
			{Reloading, "RELOADING=1\nMONOTONIC_USEC="},
			{func() error { return Stopping("draining") }, "STOPPING=1\nSTATUS=draining"},
		} {
			if err := c.tell(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1024)
			n, err := ln.Read(b)
			if got := string(b[:n]); err != nil || !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		}
	}
}

// Nobody listens, or nobody is to be told.
func TestNoSocket(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := Ready(""); err == nil {
		t.Error("told nobody")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready(""); err != nil {
		t.Error(err)
	}
}

func TestTheClockRuns(t *testing.T) {
	a := monotonic()
	time.Sleep(time.Millisecond)
	if b := monotonic(); a <= 0 || b <= a {
		t.Errorf("%v, then %v", a, b)
	}
}
