//go:build unix

package handover

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

// A client that dials between the two servers waits for the second, and a Unix socket's file goes
// with the last listener.
func TestNobodyIsRefused(t *testing.T) {
	leak.Descriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": path} {
		first, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Again(first)
		if err != nil {
			t.Fatal(err)
		}
		_ = first.Close()
		c, err := net.Dial(network, first.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := second.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Close(), s.Close()
		_ = second.Close()
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket's file: %v", err)
	}
}

// A listener without a socket can't be handed over.
func TestNoSocket(t *testing.T) {
	if _, err := Again(struct{ net.Listener }{}); err == nil {
		t.Error("handed over")
	}
}
