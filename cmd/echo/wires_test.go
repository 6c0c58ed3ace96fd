package main

import (
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
)

// One port, one handler, and clients of every protocol.
func TestEveryProtocolOnOnePort(t *testing.T) {
	_, addr := startServer(t)
	for _, w := range wire.All() {
		name := w.Name()
		t.Run(name, func(t *testing.T) {
			r := runEcho(t, "one\ntwo\n\nthree", "call", "-addr", addr, "-proto", name)
			r.wantOK(t)
			if want := "one\ntwo\n\nthree\n"; r.stdout != want {
				t.Errorf("%q came back, want %q", r.stdout, want)
			}
			r = runEcho(t, "", "call", "-addr", addr, "-proto", name, "-count", "300", "-size", "5K", "-streams", "3")
			r.wantOK(t)
			if want := "900 messages, 4,608,000 bytes on 3 streams came back intact"; !strings.Contains(r.stderr, want) {
				t.Errorf("standard error %q, want %q", r.stderr, want)
			}
			r = runEcho(t, "a\nb\n", "call", "-addr", addr, "-proto", name, "-one-way")
			r.wantOK(t)
			if r.stdout != "" || r.stderr != "" {
				t.Errorf("%q came back although the call was one-way", r.stdout)
			}
		})
	}
}

// The address can name the protocol, as a target of Dial does.
func TestAnAddressNamesAProtocol(t *testing.T) {
	_, addr := startServer(t, "-proto", "brpc")
	r := runEcho(t, "one\n", "call", "-addr", "brpc://"+addr)
	r.wantOK(t)
	if r.stdout != "one\n" {
		t.Errorf("%q came back", r.stdout)
	}
}

func TestAProtocolCanBeSwitchedOff(t *testing.T) {
	_, addr := startServer(t, "-proto", "sluice,seastar")
	runEcho(t, "x\n", "call", "-addr", addr).wantOK(t)
	runEcho(t, "x\n", "call", "-addr", addr, "-proto", "brpc", "-timeout", "5s").wantError(t, cli.ExitFailed, `lost the connection to .* in mid-stream`)
	runEcho(t, "", "serve", "-proto", "sluice,http").wantError(t, cli.ExitUsage, `no protocol "http"; there are sluice,brpc,seastar,grpc`)
	runEcho(t, "", "call", "-proto", "http").wantError(t, cli.ExitUsage, `no protocol "http"`)
}
