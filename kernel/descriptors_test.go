//go:build unix

package kernel_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

const childEnv = "SLUICE_TEST_CHILD"

// Running out of descriptors ends nothing: connections that there are go on,
// and new ones are taken when there are descriptors again.
func TestOutOfDescriptors(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		scarce(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	line := func(prefix string) string {
		t.Helper()
		for lines.Scan() {
			if s, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return s
			}
		}
		t.Fatalf("the child said no %q", prefix)
		return ""
	}
	addr := line("addr ")
	w := &world{World: &testkit.World{T: t, Ctx: t.Context()}}
	if w.Client, err = kernel.Dial(w.Ctx, addr, nil); err != nil {
		t.Fatal(err)
	}
	old := w.Open("echo")
	w.Send(old, "x")
	w.Want(old, "x")
	_, _ = fmt.Fprintln(in, "lower")
	line("lowered")
	var crowd []net.Conn
	for range 40 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, nc)
	}
	_, _ = fmt.Fprintln(in, "probe")
	line("exhausted")
	w.Send(old, "still there") // with every descriptor gone
	w.Want(old, "still there")
	for _, nc := range crowd {
		_ = nc.Close()
	}
	eventually(t, "a new connection, for the crowd has gone", func() bool {
		fresh, err := kernel.Dial(w.Ctx, addr, nil)
		if err != nil { // the server may still have the crowd's descriptors
			return false
		}
		defer fresh.Close()
		reply, err := fresh.Call(w.Ctx, "echo", text("new"), nil)
		reply.Release()
		return err == nil
	})
	w.Send(old, "and again")
	w.Want(old, "and again")
	_ = w.Client.Close()
	_ = in.Close()
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
}

// scarce is the child's side: a server in a process whose descriptors run out.
func scarce(t *testing.T) {
	srv, err := kernel.NewServer(quietServer(nil))
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("echo", echo)
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	fmt.Println("addr", ln.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "lower":
			fds, err := os.ReadDir("/dev/fd")
			if err != nil {
				t.Fatal(err)
			}
			var r syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
				t.Fatal(err)
			}
			limitTo(&r.Cur, len(fds)+8)
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
				t.Fatal(err)
			}
			fmt.Println("lowered")
		case "probe":
			eventually(t, "descriptors to run out", func() bool {
				f, err := os.Open(os.DevNull)
				if err == nil {
					_ = f.Close()
				}
				return err != nil
			})
			fmt.Println("exhausted")
		}
	}
	_ = srv.Close()
	if err := <-served; err != kernel.ErrServerClosed { //nolint:errorlint // documented to be this very value
		t.Errorf("Serve returned %v", err)
	}
}

// limitTo is for a field that is of different types on different systems.
func limitTo[T int64 | uint64](limit *T, n int) { *limit = T(n) }
