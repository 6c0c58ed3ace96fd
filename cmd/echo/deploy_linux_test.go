package main

import (
	"debug/elf"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
)

// A manager is what NOTIFY_SOCKET leads to.
type manager struct {
	t  *testing.T
	ln *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return &manager{t, ln}
}

// want waits for the next state.
func (m *manager) want(pattern string) {
	m.t.Helper()
	if err := m.ln.SetReadDeadline(time.Now().Add(timeLimit)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.ln.Read(b)
	if err != nil || !regexp.MustCompile(pattern).Match(b[:n]) {
		m.t.Fatalf("told %q, %v, want %q", b[:n], err, pattern)
	}
}

// The service manager is told when the server serves, reloads and drains. A reload leaves no client
// without a server: an open stream goes on with the old one, and new connections get the token
// that the file has now.
func TestServiceManager(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	writeToken := func(s string) {
		t.Helper()
		if err := os.WriteFile(token, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeToken("first")
	m := newManager(t)
	srv, addr := startServer(t, "-token", token)
	m.want(`^READY=1\nSTATUS=serving echo`)
	old := start(t, "call", "-addr", addr, "-token", token)
	old.echo("before")

	second := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(second, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	runEcho(t, "x\n", "call", "-addr", addr, "-token", second).wantError(t, cli.ExitFailed, "wrong token")
	writeToken("second")
	srv.signal(syscall.SIGHUP)
	m.want(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$`)
	m.want(`^READY=1\n`)
	srv.wantLine(`^serving anew, connections that drain: 1\n$`)
	old.echo("while the old server drains")
	runEcho(t, "x\n", "call", "-addr", addr, "-token", second).wantOK(t)
	if err := old.in.Close(); err != nil {
		t.Fatal(err)
	}
	old.end().wantOK(t)

	// What can't be read changes nothing.
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	srv.signal(syscall.SIGHUP)
	m.want(`^RELOADING=1\n`)
	m.want(`^READY=1\n`)
	runEcho(t, "x\n", "call", "-addr", addr, "-token", second).wantOK(t)

	srv.signal(syscall.SIGTERM)
	m.want(`^STOPPING=1\nSTATUS=draining$`)
	r := srv.end()
	r.wantOK(t)
	if !strings.Contains(r.stderr, "nothing has changed: ") {
		t.Errorf("standard error: %q", r.stderr)
	}
}

// A server that a reload has left behind is drained with the last one.
func TestDrainAfterAReload(t *testing.T) {
	srv, addr := startServer(t)
	p := start(t, "call", "-addr", addr)
	p.echo("before")
	srv.signal(syscall.SIGHUP)
	srv.wantLine("^serving anew")
	srv.signal(syscall.SIGTERM)
	srv.wantLine("^draining")
	p.echo("while both drain")
	if err := p.in.Close(); err != nil {
		t.Fatal(err)
	}
	p.end().wantOK(t)
	srv.end().wantOK(t)
}

// What a supervisor runs says by its exit code whether the server echoes.
func TestHealth(t *testing.T) {
	srv, addr := startServer(t)
	if r := runEcho(t, "", "health", addr); r.code != 0 || r.stdout != "healthy\n" {
		t.Errorf("%+v", r)
	}
	p := start(t, "call", "-addr", addr)
	p.echo("keeps it draining")
	srv.signal(syscall.SIGTERM)
	srv.wantLine("^draining")
	runEcho(t, "", "health", addr).wantError(t, cli.ExitFailed, "no server listens on "+addr)
	runEcho(t, "", "health", "-timeout", "0", addr).wantError(t, cli.ExitUsage, "must be positive")
	_ = p.in.Close()
	p.end().wantOK(t)
	srv.end().wantOK(t)

	_, secure := startServer(t, "-self-signed")
	runEcho(t, "", "health", secure).wantError(t, cli.ExitFailed, "try -tls")
	runEcho(t, "", "health", "-insecure", secure).wantOK(t)

	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	runEcho(t, "", "health", "-timeout", "50ms", mute.Addr().String()).wantError(t, cli.ExitFailed, "gave up after 50ms")
}

// The image has one file, which needs no other; its health check is one of the program's commands,
// and finds the server that the image runs.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile("(?m)" + pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no line %s", pattern)
		}
		return string(m[1])
	}
	args := func(pattern string) (list []string) {
		t.Helper()
		if err := json.Unmarshal([]byte(find(pattern)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	find(`^(FROM scratch)$`)
	find(`^(USER 65532:65532)$`)
	exe := filepath.Join(t.TempDir(), "echo-server")
	build := strings.Fields(find(`^RUN CGO_ENABLED=0 (go build .*)$`))
	for i, a := range build {
		switch a {
		case "/echo-server":
			build[i] = exe
		case "./cmd/echo":
			build[i] = "."
		}
	}
	cmd := exec.CommandContext(t.Context(), build[0], build[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs an interpreter, which the image has not")
		}
	}

	entry, serve, check := args(`^ENTRYPOINT (.*)$`), args(`^CMD (.*)$`), args(`^HEALTHCHECK .*CMD (.*)$`)
	if entry[0] != check[0] || !strings.HasSuffix(find(`^COPY --from=build (.*)$`), entry[0]) {
		t.Errorf("%v, %v", entry, check)
	}
	here := strings.NewReplacer("0.0.0.0:7000", "127.0.0.1:0")
	for i := range serve {
		serve[i] = here.Replace(serve[i])
	}
	server := exec.CommandContext(t.Context(), exe, serve...)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(readLine(t, out))
	check[0], check[len(check)-1] = exe, addr
	if out, err := exec.CommandContext(t.Context(), check[0], check[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", check, err, out)
	}
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(line), "\n"); line = append(line, b...) {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
	}
	return string(line)
}

// systemd finds nothing wrong with the unit, and the program knows the command line in it.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("deploy/echo.service")
	if err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(\S+) (.*)$`).FindStringSubmatch(string(text))
	if start == nil {
		t.Fatal("no ExecStart")
	}
	args := strings.Fields(strings.Replace(start[2], "0.0.0.0:7000", "127.0.0.1:0", 1))
	srv := startProcess(t, args)
	srv.signal(syscall.SIGTERM)
	srv.end().wantOK(t)

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	// It wants the programs of the unit to be there.
	unit := filepath.Join(t.TempDir(), "echo.service")
	here := strings.Replace(string(text), start[1], os.Getenv("ECHO_UNDER_TEST"), 1)
	if err := os.WriteFile(unit, []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", unit).CombinedOutput()
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if strings.Contains(line, "echo.service") {
			t.Error(line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// startProcess starts the program, and waits until it serves.
func startProcess(t *testing.T, args []string) *process {
	t.Helper()
	p := start(t, args...)
	p.wantLine(`^serving echo`)
	return p
}
