package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
)

func TestLinesComeBack(t *testing.T) {
	_, addr := startServer(t)
	long := strings.Repeat("0123456789", 100_000)
	for _, method := range []string{methodEcho, methodSelect} {
		for name, stdin := range map[string]string{
			"nothing":        "",
			"lines":          "one\ntwo\n\nfour, after an empty one\n",
			"no newline":     "one\ntwo",
			"a line of 1 MB": long + "\nshort\n",
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				r := runEcho(t, stdin, "call", "-addr", addr, "-method", method)
				r.wantOK(t)
				want := stdin
				if stdin != "" && !strings.HasSuffix(stdin, "\n") {
					want += "\n"
				}
				if r.stdout != want || r.stderr != "" {
					t.Errorf("%d bytes in, %d bytes back, standard error %q", len(want), len(r.stdout), r.stderr)
				}
			})
		}
	}
}

func TestALineIsAnsweredBeforeTheNextIsTyped(t *testing.T) {
	_, addr := startServer(t)
	p := start(t, "call", "-addr", addr)
	p.echo("one")
	p.echo("two")
	if err := p.in.Close(); err != nil {
		t.Fatal(err)
	}
	p.end().wantOK(t)
}

func TestLoadComesBack(t *testing.T) {
	_, addr := startServer(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, generated(t, 300_001), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-count", "2000", "-size", "64"}, "2,000 messages, 128,000 bytes on 1 streams"},
		{[]string{"-count", "500", "-size", "3K", "-streams", "8"}, "4,000 messages, 12,288,000 bytes on 8 streams"},
		{[]string{"-count", "10", "-size", "0"}, "10 messages, 0 bytes on 1 streams"},
		{[]string{"-count", "2", "-size", "1M", "-method", methodSelect}, "2 messages, 2,097,152 bytes on 1 streams"},
		{[]string{"-file", file, "-size", "1000"}, "301 messages, 300,001 bytes on 1 streams"},
		{[]string{"-file", file, "-size", "100K", "-streams", "3"}, "3 messages, 300,001 bytes on 3 streams"},
	} {
		t.Run(strings.Join(c.args[:len(c.args)-1], " "), func(t *testing.T) {
			r := runEcho(t, "", append([]string{"call", "-addr", addr}, c.args...)...)
			r.wantOK(t)
			if r.stdout != "" || !strings.Contains(r.stderr, c.want+" came back intact") {
				t.Errorf("standard output %q, standard error %q, want %q", r.stdout, r.stderr, c.want)
			}
		})
	}
}

func TestServersLimits(t *testing.T) {
	_, addr := startServer(t, "-max-message", "8M", "-max-streams", "2", "-window", "4K")
	r := runEcho(t, "", "call", "-addr", addr, "-count", "1", "-size", "6M", "-streams", "2")
	r.wantOK(t)
	runEcho(t, "", "call", "-addr", addr, "-count", "1", "-size", "9M").
		wantError(t, cli.ExitFailed, `message too large: 9437184 bytes, the limit is 8388608`)
	// A third stream waits until one is free.
	r = runEcho(t, "", "call", "-addr", addr, "-count", "100", "-streams", "5")
	r.wantOK(t)
	if !strings.Contains(r.stderr, "500 messages") {
		t.Errorf("standard error %q", r.stderr)
	}
}

func TestIdleStreamIsEnded(t *testing.T) {
	_, addr := startServer(t, "-idle", "20ms")
	p := start(t, "call", "-addr", addr, "-method", methodSelect)
	p.end().wantError(t, cli.ExitFailed, `IDLE_TIMEOUT: nothing received since`)
}

func TestClearErrors(t *testing.T) {
	_, plain := startServer(t)
	_, secure := startServer(t, "-self-signed")
	gone, free := startServer(t)
	_ = gone.cmd.Process.Kill()
	gone.end()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args    []string
		pattern string
	}{
		"port taken":           {[]string{"serve", "-addr", plain}, plain + ` is in use by another program`},
		"no server listens":    {[]string{"call", "-addr", free}, `no server listens on ` + free},
		"TLS asked of plain":   {[]string{"call", "-addr", plain, "-tls"}, `leave the TLS flags out`},
		"plain asked of TLS":   {[]string{"call", "-addr", secure}, `try -tls`},
		"unknown signer":       {[]string{"call", "-addr", secure, "-tls"}, `-ca, or try -insecure`},
		"no such method":       {[]string{"call", "-addr", plain, "-method", "sing"}, `no method "sing"`},
		"no port":              {[]string{"call", "-addr", "127.0.0.1"}, `missing port`},
		"no such file":         {[]string{"call", "-addr", plain, "-file", filepath.Join(dir, "x")}, `no such file|cannot find`},
		"no such certificate":  {[]string{"serve", "-cert", filepath.Join(dir, "x"), "-key", filepath.Join(dir, "y")}, `no such file|cannot find`},
		"directory for a file": {[]string{"demo", dir}, `not a file with a length`},
		"demo, no such file":   {[]string{"demo", filepath.Join(dir, "x")}, `no such file|cannot find`},
	} {
		t.Run(name, func(t *testing.T) {
			runEcho(t, "line\n", c.args...).wantError(t, cli.ExitFailed, c.pattern)
		})
	}
}

func TestUnixSocket(t *testing.T) {
	addr := "unix:" + filepath.Join(t.TempDir(), "echo")
	runEcho(t, "early\n", "call", "-addr", addr).wantError(t, cli.ExitFailed, "no server listens on "+addr)
	srv := start(t, "serve", "-addr", addr)
	srv.wantLine("^serving echo and echo\\.select on " + regexp.QuoteMeta(addr))
	r := runEcho(t, "over a socket\n", "call", "-addr", addr)
	r.wantOK(t)
	if r.stdout != "over a socket\n" {
		t.Errorf("%q", r.stdout)
	}
	runEcho(t, "", "serve", "-addr", addr).wantError(t, cli.ExitFailed, addr+" is in use by another program")
}

func TestTimeout(t *testing.T) {
	_, addr := startServer(t)
	p := start(t, "call", "-addr", addr, "-timeout", "30ms")
	p.end().wantError(t, cli.ExitFailed, `gave up after 30ms`)
}

// The middleware is around the handlers of package rpc too.
func TestStreamsAreLogged(t *testing.T) {
	needSignals(t)
	srv, addr := startServer(t, "-v")
	runEcho(t, "one\ntwo\n", "call", "-addr", addr).wantOK(t)
	runEcho(t, "", "call", "-addr", addr, "-proto", "seastar").wantOK(t)
	srv.signal(syscall.SIGTERM)
	r := srv.end()
	r.wantOK(t)
	for _, want := range []string{`method=echo peer=127\.0\.0\.1:\d+ status=OK received=2 took=\S+\n`, `method=#1 .* status=OK`} {
		if !regexp.MustCompile(want).MatchString(r.stderr) {
			t.Errorf("no %q in:\n%s", want, r.stderr)
		}
	}
}

func TestDrainLetsAnOpenStreamFinish(t *testing.T) {
	needSignals(t)
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(s.String(), func(t *testing.T) {
			srv, addr := startServer(t)
			p := start(t, "call", "-addr", addr)
			p.echo("before")
			srv.signal(s)
			srv.wantLine("^draining for at most 30s, connections open: 1;")
			p.echo("while it drains")
			runEcho(t, "late\n", "call", "-addr", addr).wantError(t, cli.ExitFailed, "no server listens")
			if err := p.in.Close(); err != nil {
				t.Fatal(err)
			}
			p.end().wantOK(t)
			srv.end().wantOK(t)
		})
	}
}

func TestDrainWithoutStreamsEndsAtOnce(t *testing.T) {
	needSignals(t)
	srv, _ := startServer(t, "-drain", "1h")
	srv.signal(syscall.SIGTERM)
	srv.end().wantOK(t)
}

func TestDrainResetsStreamsAtItsTimeLimit(t *testing.T) {
	needSignals(t)
	srv, addr := startServer(t, "-drain", "20ms")
	p := start(t, "call", "-addr", addr)
	p.echo("before")
	srv.signal(syscall.SIGTERM)
	srv.wantLine("^draining")
	srv.end().wantError(t, cli.ExitFailed, "still open after 20ms")
	p.end().wantError(t, cli.ExitFailed, "lost the connection to "+addr+" in mid-stream")
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	needSignals(t)
	srv, addr := startServer(t, "-drain", "1h")
	p := start(t, "call", "-addr", addr)
	p.echo("before")
	srv.signal(syscall.SIGTERM)
	srv.wantLine("^draining")
	srv.signal(syscall.SIGTERM)
	srv.end().wantError(t, cli.ExitFailed, "second signal")
	p.end().wantError(t, cli.ExitFailed, "lost the connection to "+addr+" in mid-stream")
}

func TestAKilledServerIsNotAnEndOfStream(t *testing.T) {
	for _, method := range []string{methodEcho, methodSelect} {
		t.Run(method, func(t *testing.T) {
			srv, addr := startServer(t)
			p := start(t, "call", "-addr", addr, "-method", method)
			p.echo("before")
			if err := srv.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.end().wantError(t, cli.ExitFailed, "lost the connection to "+addr+" in mid-stream")
		})
	}
}
