package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// terminal returns the two ends of a pseudo-terminal.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	var number, unlocked int32
	for req, arg := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlocked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), req, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Skipf("no pseudo-terminals here: %v", errno)
		}
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	return screen, tty
}

// TestProgressIsLiveOnATerminal: one line that is drawn over, and gone when the
// summary comes.
func TestProgressIsLiveOnATerminal(t *testing.T) {
	for term, live := range map[string]bool{"xterm": true, "dumb": false} {
		t.Run(term, func(t *testing.T) {
			screen, tty := terminal(t)
			var out bytes.Buffer
			cmd := echoCommand(t, "demo", "-size", "4M")
			cmd.Stdout, cmd.Stderr, cmd.Env = &out, tty, append(cmd.Env, "TERM="+term)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = tty.Close()
			shown, _ := io.ReadAll(screen) // ends with an error when the last user is gone
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v: %s", err, shown)
			}
			text := string(shown)
			if live && (!strings.HasPrefix(text, "\r\x1b[?7l[") || !strings.HasSuffix(text, "\r\x1b[K") || strings.Contains(text, "\n")) {
				t.Errorf("not one live line: %q", text)
			}
			if !live && strings.Contains(text, "\x1b") {
				t.Errorf("control sequences for a dumb terminal: %q", text)
			}
		})
	}
}
