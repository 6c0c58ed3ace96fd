package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluicerpc/sluice/benchmarks/load/report"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// service is a server as a user would have it. Over Seastar's protocol its methods are the calls
// #1 and the streams #2.
type service struct {
	addr string

	mu       sync.Mutex
	requests map[string]bool // that its unary method was called with
}

func serveService(t *testing.T, opts kernel.ServerOptions) *service {
	t.Helper()
	opts.Protocols = []frame.Protocol{native.Protocol{}, strm.Protocol{}, &seastar.Protocol{}, triple.Protocol{}}
	srv, err := kernel.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{requests: map[string]bool{}}
	srv.Handle("pkg.Service/Call", s.call)
	srv.Handle(kernel.Verb(1), s.call)
	srv.Handle("pkg.Service/Stream", echoStream)
	srv.Handle("pkg.Service/Opened", func(ctx context.Context, s *kernel.Stream) error {
		request, err := s.Request(ctx)
		if err != nil {
			return err
		}
		got := string(request.Bytes())
		if request.Release(); got != "hello" {
			return &status.HandlerError{Code: status.InvalidArgument, Reason: "opened with " + got}
		}
		return echoStream(ctx, s)
	})
	srv.Handle("pkg.Service/OneMore", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.Send(ctx, pool.MessageOf([]byte("a greeting"))); err != nil {
			return err
		}
		return echoStream(ctx, s)
	})
	srv.Handle("pkg.Service/Fail", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		defer m.Release()
		if strings.HasSuffix(string(m.Bytes()), "3") {
			return &status.HandlerError{Code: status.ResourceExhausted, Reason: "no threes"}
		}
		return s.Send(ctx, pool.MessageOf([]byte("ok")))
	})
	type (
		source = *rpc.Source[pool.Message]
		sink   = *rpc.Sink[pool.Message]
	)
	err = rpc.HandleUnary(srv, kernel.Verb(2), func(_ context.Context, in source) (sink, error) {
		in.Go(func(ctx context.Context) error { return echoStream(ctx, in.Stream()) })
		return rpc.MakeSink[pool.Message](in), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return s
}

func (s *service) call(ctx context.Context, st *kernel.Stream) error {
	m, err := st.Receive(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.requests[string(m.Bytes())] = true
	s.mu.Unlock()
	return st.Send(ctx, m)
}

func echoStream(ctx context.Context, s *kernel.Stream) error {
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return ended(err)
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
}

// ended is the error of a stream on which Receive failed.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// called runs load call for a moment and returns its report too.
func called(t *testing.T, args ...string) (r *report.Report, code int, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.json")
	args = append([]string{"call"}, args...)
	args = append(args, "--duration=200ms", "--warmup=50ms", "--interval=50ms", "--max-lateness=1s", "--json="+path)
	code, stdout, stderr := command(t.Context(), args...)
	text = stdout + stderr
	r = new(report.Report)
	if b, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(b, r); err != nil {
			t.Fatal(err)
		}
	}
	return r, code, text
}

// okay fails the test unless the run ended in order, or INVALID: that says the machine was busy.
func okay(t *testing.T, r *report.Report, code int, text string) *report.Run {
	t.Helper()
	if code != exitOK && code != exitInvalid || len(r.Runs) == 0 {
		t.Fatalf("exit %d: %s", code, text)
	}
	run := r.Runs[0]
	if run.Checks.Messages == 0 || run.Checks.Violations() != 0 || run.Errors != 0 || run.FailedCalls() != 0 {
		t.Errorf("%+v, %d errors, failed %v", run.Checks, run.Errors, run.Failed)
	}
	return run
}

func TestCallsAndStreamsOverEveryProtocol(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	for _, proto := range []string{"", "sluice://", "brpc://", "seastar://", "grpc://", "tri://"} {
		unary, stream := "pkg.Service/Call", "pkg.Service/Stream"
		if proto == "seastar://" {
			unary, stream = "#1", "#2"
		}
		for name, args := range map[string][]string{
			"calls":                   {unary, "--streams=4"},
			"calls, open model":       {unary, "--streams=4", "--rate=500"},
			"stream":                  {stream, "--shape=stream"},
			"several at a time":       {stream, "--shape=stream", "--streams=3", "--outstanding=8", "--conns=2"},
			"two goroutines a stream": {stream, "--shape=stream", "--outstanding=4", "--size=20KiB"},
			"stream, open model":      {stream, "--shape=stream", "--streams=2", "--rate=500", "--size=4"},
		} {
			t.Run(proto+name, func(t *testing.T) {
				r, code, text := called(t, append([]string{proto + s.addr}, args...)...)
				run := okay(t, r, code, text)
				if run.Service.Count == 0 && run.Messages > 0 || r.Preset != "call "+args[0] {
					t.Errorf("%d latencies of %d messages, preset %q", run.Service.Count, run.Messages, r.Preset)
				}
			})
		}
	}
}

func TestTheMessageIsTheUsers(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	r, code, text := called(t, s.addr, "pkg.Service/Call", "--streams=2", "--conns=2", `--data={"name":"{{stream}}/{{counter}}"}`)
	run := okay(t, r, code, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, want := range []string{`{"name":"0/0"}`, `{"name":"1/1"}`, `{"name":"2/2"}`, `{"name":"3/3"}`, `{"name":"1/5"}`} {
		if !s.requests[want] {
			t.Errorf("no request %s", want)
		}
	}
	if n := uint64(len(s.requests)); n != run.Checks.Messages {
		t.Errorf("%d different requests in %d calls", n, run.Checks.Messages)
	}
	if !strings.Contains(string(r.Config), `{{counter}}`) {
		t.Errorf("the report does not tell the message: %s", r.Config)
	}
}

func TestTheMessageOfAFileIsSentAsItIs(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	path := filepath.Join(t.TempDir(), "request")
	if err := os.WriteFile(path, []byte("\x00\x01{{counter}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, code, text := called(t, "grpc://"+s.addr, "pkg.Service/Call", "--file="+path)
	okay(t, r, code, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != 1 || !s.requests["\x00\x01{{counter}}"] {
		t.Errorf("%d requests", len(s.requests))
	}
}

func TestARequestOpensAStream(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	path := filepath.Join(t.TempDir(), "request")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{"", "brpc://"} {
		r, code, text := called(t, proto+s.addr, "pkg.Service/Opened", "--shape=stream", "--request="+path)
		okay(t, r, code, text)
	}
	if _, code, text := called(t, s.addr, "pkg.Service/Opened", "--shape=stream"); code != exitConnect || !strings.Contains(text, "opened with") {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestTheHelpOfCall(t *testing.T) {
	_, help, _ := command(t.Context(), "call", "--help")
	if !strings.Contains(help, "do NOT check the server's certificate") || strings.Contains(help, "--workload") || strings.Contains(help, "--bulk") {
		t.Error(help)
	}
	if _, help, _ = command(t.Context(), "run", "--help"); !strings.Contains(help, "--workload") {
		t.Error(help)
	}
}

func TestCallsThatFailAreCountedByCode(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	for _, proto := range []string{"", "grpc://"} {
		args := []string{proto + s.addr, "pkg.Service/Fail", "--data={{counter}}", "--streams=4"}
		r, code, text := called(t, args...)
		if code != exitFailed || !strings.Contains(text, " calls failed: "+status.ResourceExhausted.String()) || !strings.Contains(text, "CALLS FAILED") {
			t.Fatalf("exit %d: %s", code, text)
		}
		run := r.Runs[0]
		if all := run.Checks.Messages + run.FailedCalls(); run.FailedCalls() < all/20 || run.FailedCalls() > all/5+4 || run.Checks.Violations() > 0 || run.Errors > 0 {
			t.Errorf("%d of %d failed: %+v, %d errors", run.FailedCalls(), all, run.Checks, run.Errors)
		}
		// The SLO may say how many may fail.
		if _, code, text = called(t, append(args, "--slo=failed>0")...); code != exitOK && code != exitInvalid {
			t.Errorf("exit %d: %s", code, text)
		}
		if _, code, text = called(t, append(args, "--slo=failed==0")...); code != exitSLO {
			t.Errorf("exit %d: %s", code, text)
		}
	}
}

func TestAServiceThatIsNotThere(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	for _, proto := range []string{"", "brpc://", "grpc://"} {
		for _, shape := range []string{"unary", "stream"} {
			_, code, text := called(t, proto+s.addr, "pkg.Service/Nosuch", "--shape="+shape)
			if code != exitConnect || !strings.Contains(text, "pkg.Service/Nosuch") || strings.Contains(text, "load serve") {
				t.Errorf("%s%s: exit %d: %s", proto, shape, code, text)
			}
		}
	}
	if _, code, text := called(t, "127.0.0.1:1", "pkg.Service/Call"); code != exitConnect || !strings.Contains(text, "127.0.0.1:1") {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestAServiceThatSendsOneMessageMore(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	_, code, text := called(t, s.addr, "pkg.Service/OneMore", "--shape=stream")
	if code != exitViolation || !strings.Contains(text, " 1 duplicated") {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestAServiceThatIsTooSlow(t *testing.T) {
	srv := serveService(t, kernel.ServerOptions{})
	_, code, text := called(t, srv.addr, "pkg.Service/Call", "--timeout=1ns")
	if code != exitFailed || !strings.Contains(text, status.DeadlineExceeded.String()) {
		t.Errorf("exit %d: %s", code, text)
	}
}

func TestAServiceWithTLSAndAToken(t *testing.T) {
	config, err := peer.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]})
	if err := errors.Join(os.WriteFile(ca, text, 0o600), os.WriteFile(token, []byte("secret\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	authenticated := serveService(t, kernel.ServerOptions{TLS: config, Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
		if string(p.Token) != "secret" {
			return nil, errors.New("wrong token")
		}
		return "a client", nil
	}})
	// gRPC's clients send it with each call.
	var handlers kernel.Handlers
	handlers.Use(func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if s.Metadata().Get("authorization") != "Bearer secret" {
				return &status.HandlerError{Code: status.Unauthenticated, Reason: "wrong token"}
			}
			return next(ctx, s)
		}
	})
	checked := serveService(t, kernel.ServerOptions{TLS: config, Handlers: &handlers})
	for proto, s := range map[string]*service{"": authenticated, "grpc://": checked} {
		_, port, _ := net.SplitHostPort(s.addr)
		target := "localhost:" + port
		for name, tt := range map[string]struct {
			args []string
			ok   bool
		}{
			"the CA":           {[]string{target, "--ca=" + ca, "--token=" + token}, true},
			"no check":         {[]string{s.addr, "--insecure", "--token=" + token}, true},
			"the system's CAs": {[]string{target, "--tls", "--token=" + token}, false},
			"another name":     {[]string{s.addr, "--ca=" + ca, "--token=" + token}, false},
			"no token":         {[]string{target, "--ca=" + ca}, false},
			"plain text":       {[]string{target, "--token=" + token}, false},
			"a fault":          {[]string{target, "--ca=" + ca, "--token=" + token, "--shape=stream", "--at=10ms=delay:1ms/50ms"}, true},
		} {
			method := "pkg.Service/Call"
			if name == "a fault" {
				method = "pkg.Service/Stream"
			}
			args := append([]string{proto + tt.args[0], method}, tt.args[1:]...)
			r, code, text := called(t, args...)
			if !tt.ok {
				if code != exitConnect {
					t.Errorf("%s%s: exit %d: %s", proto, name, code, text)
				}
				continue
			}
			okay(t, r, code, text)
			if warned := strings.Contains(text, "certificate was NOT checked"); warned != (name == "no check") {
				t.Errorf("%s%s: warned %v: %s", proto, name, warned, text)
			}
		}
	}
}

func TestCallsBadUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"call", "expected \"<target> <method>\""},
		{"call 127.0.0.1:1", "expected \"<method>\""},
		{"call http://127.0.0.1:1 m", "no protocol \"http\""},
		{"call 127.0.0.1:1 m --workload=idle", "--shape"},
		{"call 127.0.0.1:1 m --bulk-streams=1", "--bulk-streams"},
		{"call 127.0.0.1:1 m --shape=both", "--shape"},
		{"call 127.0.0.1:1 m --data={{what}}", "want counter"},
		{"call 127.0.0.1:1 m --data=x --file=y", "leave one out"},
		{"call 127.0.0.1:1 m --file=/nowhere/at/all", "no such file"},
		{"call 127.0.0.1:1 m --request=/nowhere/at/all", "--request opens a stream"},
		{"call 127.0.0.1:1 m --outstanding=4", "one call at a time"},
		{"call 127.0.0.1:1 m --insecure --ca=x", "leave --ca out"},
		{"call 127.0.0.1:1 m --cert=x", "go together"},
		{"call 127.0.0.1:1 m --token=/nowhere/at/all", "no such file"},
		{"call 127.0.0.1:1 m --at=5s=kill-conns:5%", "needs streams"},
		{"call 127.0.0.1:1 m --shape=stream --timeout=1s", "--timeout"},
		{"run fan --workload=call", "load call makes calls"},
	} {
		code, _, stderr := command(t.Context(), strings.Fields(tt.args)...)
		if code != exitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("load %s: exit %d, %q; want %q", tt.args, code, stderr, tt.want)
		}
	}
}

// Two reports of the same service can be compared.
func TestReportsOfAServiceCompare(t *testing.T) {
	s := serveService(t, kernel.ServerOptions{})
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"a.json", "b.json"} {
		path := filepath.Join(dir, name)
		code, _, stderr := command(t.Context(), "call", s.addr, "pkg.Service/Call", "--duration=60ms", "--warmup=0s", "--interval=20ms", "--runs=4", "-q", "--json="+path, "--html="+path+".html", "--bench="+path+".txt")
		if code != exitOK && code != exitInvalid {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		paths = append(paths, path)
	}
	code, stdout, stderr := command(t.Context(), "compare", paths[0], paths[1])
	if code != exitOK || !strings.Contains(stdout, "p99") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if page, err := os.ReadFile(paths[0] + ".html"); err != nil || !strings.Contains(string(page), "call pkg.Service/Call over sluice") {
		t.Errorf("no page: %v", err)
	}
	// A name with a space is none for benchstat.
	if lines, err := os.ReadFile(paths[0] + ".txt"); err != nil || !strings.Contains(string(lines), "BenchmarkLoad/call/pkg.Service/Call/peer=sluice") {
		t.Errorf("%s, %v", lines, err)
	}
}
