package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// conformanceServer has the suite's clients, of connect-go and grpc-go, test our server.
func conformanceServer(ctx context.Context, b *bench) (string, error) {
	return b.conformance(ctx, 568, "server", b.path(subject), "conformance-server")
}

// conformanceClient has the suite's server test our client.
func conformanceClient(ctx context.Context, b *bench) (string, error) {
	return b.conformance(ctx, 644, "client", b.path(subject), "conformance-client")
}

// The same, with generated code that runs through contrib/grpc. Over sluice's own wire its client
// tests its server.

func contribServer(ctx context.Context, b *bench) (string, error) {
	return b.conformance(ctx, 568, "server", b.path(subject), "contrib-server")
}

func contribClient(ctx context.Context, b *bench) (string, error) {
	return b.conformance(ctx, 644, "client", b.path(subject), "contrib-client")
}

func contribNative(ctx context.Context, b *bench) (string, error) {
	return b.conformance(ctx, 304, "both", b.path(subject), "contrib-client-native", "----", b.path(subject), "contrib-server")
}

// total is how connectconformance ends.
var total = regexp.MustCompile(`(?m)^Total cases: (\d+)\n(\d+) passed, (\d+) failed`)

// conformance runs the suite in one of its modes, on the programs of a command. Every one of its
// cases must pass: there is no list of known failures.
func (b *bench) conformance(ctx context.Context, cases int, mode string, command ...string) (string, error) {
	out, err := b.output(ctx, b.module, b.path(conformance),
		append([]string{"--conf", "conformance/grpc.yaml", "--mode", mode, "--"}, command...)...)
	if err != nil {
		return "", err
	}
	m := total.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("no result in what connectconformance prints:\n%s", out)
	}
	found := m[2] + " of " + m[1]
	if want := strconv.Itoa(cases); m[1] != want || m[2] != want || m[3] != "0" {
		return found, fmt.Errorf("%s, and %d must pass:\n%s", found, cases, out)
	}
	return found, nil
}

// interopCases are the cases of gRPC's interoperability suite that need no account of a cloud's.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// grpcGoClient has grpc-go's interoperability client test our server.
func grpcGoClient(ctx context.Context, b *bench) (string, error) {
	return b.withSubject(ctx, func(port string) (string, error) {
		var errs []error
		for _, c := range interopCases {
			_, err := b.output(ctx, b.dir, b.path(grpcClient), "-server_host=127.0.0.1", "-server_port="+port,
				"-use_tls=false", "-test_case="+c)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c, err))
			}
		}
		return tally(len(interopCases), len(errs)), errors.Join(errs...)
	})
}

func tally(all, failed int) string { return fmt.Sprintf("%d of %d", all-failed, all) }

// grpcGoServer has our client test grpc-go's interoperability server.
func grpcGoServer(ctx context.Context, b *bench) (found string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	p := &process{cmd: b.command(ctx, b.dir, b.path(grpcServer), "-port="+port), name: "server"}
	p.cmd.Stdout, p.cmd.Stderr = &p.errs, &p.errs
	if err := p.cmd.Start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.kill()) }()
	addr := net.JoinHostPort("127.0.0.1", port)
	if err := dialable(ctx, addr); err != nil {
		return "", err
	}
	return b.checks(ctx, interopCases, "grpctest", addr)
}

// checks has our client check the server at addr. It must print that each case is right.
func (b *bench) checks(ctx context.Context, cases []string, args ...string) (string, error) {
	out, err := b.output(ctx, b.dir, b.path(subject), args...)
	return results(out, err, cases)
}

// results reads lines of "case: ok".
func results(out string, err error, cases []string) (string, error) {
	passed := map[string]bool{}
	for line := range strings.Lines(out) {
		if name, result, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && result == "ok" {
			passed[name] = true
		}
	}
	failed := 0
	for _, c := range cases {
		if !passed[c] {
			failed++
		}
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("not all is right:\n%s", out)
	}
	return tally(len(cases), failed), err
}

// freePort finds a port for a server that does not say which it has taken.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, errors.Join(err, ln.Close())
}

// dialable waits until a server listens.
func dialable(ctx context.Context, addr string) error {
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// greeterCases are the checks of js/client.js and of our own client.
var greeterCases = []string{
	"unary", "client stream", "server stream", "bidi stream", "error", "metadata",
	"cancel unary", "cancel server stream", "cancel bidi stream", "deadline",
}

// grpcJSClient has a client of grpc-js check our server.
func grpcJSClient(ctx context.Context, b *bench) (string, error) {
	return b.withSubject(ctx, func(port string) (string, error) {
		out, err := b.output(ctx, b.path(js), "node", "client.js", "127.0.0.1:"+port)
		return results(out, err, greeterCases)
	})
}

// grpcJSServer has our client check a server of grpc-js.
func grpcJSServer(ctx context.Context, b *bench) (found string, err error) {
	p, err := b.serve(ctx, b.path(js), "node", "server.js")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.kill()) }()
	return b.checks(ctx, greeterCases, "greeter", net.JoinHostPort("127.0.0.1", p.port))
}
