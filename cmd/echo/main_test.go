package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/internal/leak"
)

// timeLimit ends a test that hangs. No test waits for it.
const timeLimit = time.Minute

// TestMain builds the program once; most tests run it as a user does.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "echo")
	if err == nil {
		err = build(filepath.Join(dir, "echo"), ".")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.Setenv("ECHO_UNDER_TEST", filepath.Join(dir, "echo")); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, append(leak.Allowed(), goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))...)
}

func build(out string, args ...string) error {
	cmd := exec.Command("go", "build", "-o", out)
	if raceDetector {
		cmd.Args = append(cmd.Args, "-race")
	}
	cmd.Args = append(cmd.Args, args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, text)
	}
	return nil
}

func echoCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Getenv("ECHO_UNDER_TEST"), args...)
	// A program with the race detector waits a second when it exits.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=10")
	return cmd
}

// result is how a command went.
type result struct {
	stdout, stderr string
	code           int
}

func runEcho(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	cmd := echoCommand(t, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	code := exitOf(t, cmd.Run())
	return result{out.String(), err.String(), code}
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var ee *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ee):
		return ee.ExitCode()
	}
	t.Fatal(err)
	return -1
}

func (r result) wantOK(t *testing.T) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d, standard error: %s", r.code, r.stderr)
	}
}

// wantError checks that a command failed with one clear line.
func (r result) wantError(t *testing.T, code int, pattern string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	line, more, _ := strings.Cut(r.stderr, "\n")
	if more != "" || !strings.HasPrefix(line, "echo") || !regexp.MustCompile(pattern).MatchString(line) {
		t.Errorf("standard error is not one line that matches %q:\n%s", pattern, r.stderr)
	}
}

// A process is a command that a test talks to while it runs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	ended  bool
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: echoCommand(t, args...)}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out, p.cmd.Stderr = in, bufio.NewReader(out), &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

func (p *process) writeLine(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) wantLine(pattern string) string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil || !regexp.MustCompile(pattern).MatchString(line) {
		p.t.Fatalf("got line %q and error %v, want %q; standard error: %s", line, err, pattern, p.end().stderr)
	}
	return line
}

// echo sends a line and wants it back.
func (p *process) echo(line string) {
	p.t.Helper()
	p.writeLine(line)
	p.wantLine("^" + line + "\n$")
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the process; what it still prints is the result's stdout.
func (p *process) end() result {
	p.t.Helper()
	rest, _ := io.ReadAll(p.out)
	p.ended = true
	code := exitOf(p.t, p.cmd.Wait())
	return result{string(rest), p.stderr.String(), code}
}

// startServer starts a server on a free port and returns where it listens.
func startServer(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	p := start(t, append([]string{"serve", "-addr", "127.0.0.1:0"}, args...)...)
	line := p.wantLine(`^serving echo and echo\.select on 127\.0\.0\.1:\d+`)
	return p, regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
}

func needSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("processes can't be signalled here")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"help"}, {"demo", "-h"}, {"serve", "-h"}, {"call", "-h"}} {
		if r := runEcho(t, "", args...); r.code != 0 || !strings.Contains(r.stdout, "echo") || r.stderr != "" {
			t.Errorf("echo %v: code %d, stdout %q, stderr %q", args, r.code, r.stdout, r.stderr)
		}
	}
	// Flags are listed in the order of their names.
	if r := runEcho(t, "", "call", "-h"); strings.Contains(r.stdout, "below") || strings.Contains(r.stdout, "above") {
		t.Errorf("a flag is where it is not:\n%s", r.stdout)
	}
	if r := runEcho(t, ""); r.code != cli.ExitUsage || !strings.Contains(r.stderr, "echo demo") {
		t.Errorf("without arguments: code %d, stderr %q", r.code, r.stderr)
	}
}

func TestMistakesInTheCommandLineAreUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args    []string
		pattern string
	}{
		{[]string{"dance"}, `no command "dance"`},
		{[]string{"demo", "-frobnicate"}, `frobnicate`},
		{[]string{"demo", "a", "b"}, `unexpected argument "b"`},
		{[]string{"demo", "-streams", "0"}, `-streams`},
		{[]string{"demo", "-size", "many"}, `number of bytes`},
		{[]string{"serve", "x"}, `unexpected argument "x"`},
		{[]string{"serve", "-max-streams", "-1"}, `MaxStreams is -1`},
		{[]string{"serve", "-cert", "c.pem"}, `-cert and -key go together`},
		{[]string{"serve", "-client-ca", "c.pem"}, `-client-ca needs TLS`},
		{[]string{"serve", "-self-signed", "-cert", "c", "-key", "k"}, `-self-signed`},
		{[]string{"call", "-streams", "2"}, `-streams needs`},
		{[]string{"call", "-count", "1", "-file", "f"}, `leave -file out`},
		{[]string{"call", "-count", "-1"}, `negative`},
		{[]string{"call", "-count", "1", "-one-way"}, `-one-way is for lines`},
		{[]string{"call", "-file", "f", "-size", "0"}, `0 bytes`},
		{[]string{"call", "-count", "1", "-size", "2G"}, `larger than 1G`},
		{[]string{"call", "-key", "k.pem"}, `-cert and -key go together`},
		{[]string{"call", "-insecure", "-ca", "c.pem"}, `leave -ca out`},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			runEcho(t, "", c.args...).wantError(t, cli.ExitUsage, c.pattern)
		})
	}
}
