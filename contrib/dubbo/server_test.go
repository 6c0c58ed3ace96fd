package dubbo_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A logbook is a log that a test reads.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func handlers(t *testing.T) *kernel.Handlers {
	t.Helper()
	var hs kernel.Handlers
	if err := registerGreeter(&hs); err != nil {
		t.Fatal(err)
	}
	return &hs
}

// start starts a server that ends with the test.
func start(t *testing.T, c *dubbo.Config, opts *kernel.ServerOptions) *dubbo.Server {
	t.Helper()
	var o kernel.ServerOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := c.Start(t.Context(), handlers(t), &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

// free are protocols on free ports of this machine alone.
func free(ids ...string) (ps []dubbo.Protocol) {
	for _, id := range ids {
		ps = append(ps, dubbo.Protocol{ID: id, IP: "127.0.0.1"})
	}
	return ps
}

// A YAML file is all that a server needs, and the log says what it serves and what has no effect.
func TestStart(t *testing.T) {
	yaml, err := os.ReadFile(filepath.Join("testdata", "application.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dubbo.yaml")
	if err := os.WriteFile(path, bytes.Replace(yaml, []byte("'8888'"), []byte("'0'"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(dubbo.ConfigPathEnv, path)
	var log logbook
	before := slog.Default()
	slog.SetDefault(log.logger())
	t.Cleanup(func() { slog.SetDefault(before) })

	ctx, cancel := context.WithCancel(t.Context())
	srv, err := dubbo.Start(ctx, handlers(t))
	if err != nil {
		t.Fatal(err)
	}
	addr := srv.Addrs()[0].(*net.TCPAddr)
	port := strconv.Itoa(addr.Port)
	url := "triple://0.0.0.0:" + port + "/" + greeter
	want := `level=WARN msg="dubbo: no effect: there is no discovery, servers are not registered and clients dial addresses" key=dubbo.registries line=10
level=WARN msg="dubbo: no effect: there is no routing by tags" key=dubbo.provider.services.GreeterProvider.tag line=19
level=WARN msg="dubbo: unknown key" key=dubbo.provider.services.GreeterProvider.typo line=22
level=WARN msg="dubbo: no effect: there is no routing, a client dials one address" key=dubbo.routers line=30
level=INFO msg="dubbo: serving ` + url + `" version=1.0.0 group=test
`
	if got := log.String(); got != want {
		t.Errorf("the log is\n%s\nwant\n%s", got, want)
	}
	if got := srv.URLs(); !reflect.DeepEqual(got, []string{url}) {
		t.Errorf("the URLs are %q", got)
	}
	c := dial(t, "tri://127.0.0.1:"+port)
	wantGreetings(t, dubbo.Reference{Version: "1.0.0", Group: "test"}.Caller(c))
	cancel()
	if err := srv.Wait(); err != nil {
		t.Errorf("at the end: %v", err)
	}
	if got := srv.Servers()[0].Stats().Accepted; got != 1 {
		t.Errorf("%d connections", got)
	}
}

// What is not configured has its default.
func TestTheDefaultProtocol(t *testing.T) {
	want := []dubbo.Protocol{{ID: "triple", IP: "0.0.0.0", Port: 8888}}
	if got := dubbo.ProtocolsOf(&dubbo.Config{}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := dubbo.ProtocolsOf(&dubbo.Config{Protocols: free("p")}); !reflect.DeepEqual(got, free("p")) {
		t.Errorf("%v", got)
	}
}

// A service is served where its protocols say, and one that nobody speaks of everywhere.
func TestSeveralProtocols(t *testing.T) {
	var log logbook
	srv := start(t, &dubbo.Config{
		Protocols: free("front", "back", "bare"),
		Services: []dubbo.Service{
			{ID: "a", Interface: greeter, Protocols: []string{"back"}},
			{ID: "b", Interface: "other.Service", Protocols: []string{"front", "back"}},
		},
	}, &kernel.ServerOptions{Logger: log.logger()})
	addrs := srv.Addrs()
	front, back, bare := "triple://"+addrs[0].String(), "triple://"+addrs[1].String(), "triple://"+addrs[2].String()
	want := []string{front + "/other.Service", back + "/" + greeter, back + "/other.Service", bare}
	if got := srv.URLs(); !reflect.DeepEqual(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	for _, url := range want {
		if !strings.Contains(log.String(), url) {
			t.Errorf("%s is not in the log", url)
		}
	}
	wantRefused(t, dial(t, front))
	wantGreetings(t, dial(t, back))
	wantRefused(t, dial(t, bare))
	if got := len(srv.Servers()); got != 3 {
		t.Errorf("%d servers", got)
	}
}

// The program's own Authorize is asked about what is served, and about nothing else.
func TestAuthorizeOfTheProgram(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	srv := start(t, &dubbo.Config{
		Protocols: free("p"), Services: []dubbo.Service{{Interface: greeter, Version: "1"}},
	}, &kernel.ServerOptions{Authorize: func(_ context.Context, _ kernel.Identity, method string, md metadata.MD) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, method+" "+md.Get("who"))
		if md.Get("who") != "me" {
			return errors.New("not you")
		}
		return nil
	}})
	c := dial(t, "triple://"+srv.Addrs()[0].String())
	wantRefused(t, c)
	v1 := dubbo.Reference{Version: "1"}.Caller(c)
	for who, code := range map[string]status.Code{"me": status.OK, "another": status.PermissionDenied} {
		opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{Metadata: metadata.MD{{Key: "who", Value: who}}}}
		_, err := rpc.Call[text](t.Context(), v1, greeter+"/greet", wrapperspb.String("Ada"), opts)
		var se *status.StreamError
		if code == status.OK && err != nil || code != status.OK && (!errors.As(err, &se) || se.Code != code) {
			t.Errorf("%s: %v", who, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 2 {
		t.Errorf("it was asked %q", asked)
	}
}

// Other protocols are served on the same port, and Triple also if they don't name it.
func TestFurtherWires(t *testing.T) {
	srv := start(t, &dubbo.Config{
		Protocols: free("p"), Services: []dubbo.Service{{Interface: greeter, Group: "g"}},
	}, &kernel.ServerOptions{Protocols: []frame.Protocol{native.Protocol{}}})
	addr := srv.Addrs()[0].String()
	ref := dubbo.Reference{Group: "g"}
	wantGreetings(t, ref.Caller(dial(t, "triple://"+addr)))
	c, err := kernel.Dial(t.Context(), addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantRefused(t, c)
	wantGreetings(t, ref.Caller(c))
}

// What can't be started is an error, and nothing is left of it.
func TestStartFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).Port
	start := func(c *dubbo.Config, opts *kernel.ServerOptions) error {
		t.Helper()
		srv, err := c.Start(t.Context(), handlers(t), opts)
		if err == nil {
			t.Error("it has started")
			_ = srv.Close()
		}
		return err
	}
	var conn *status.ConnError
	both := append(free("free"), dubbo.Protocol{ID: "taken", IP: "127.0.0.1", Port: taken})
	if err := start(&dubbo.Config{Protocols: both}, nil); !errors.As(err, &conn) || conn.Op != "listen" || !strings.Contains(err.Error(), "dubbo.protocols.taken") {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := start(&dubbo.Config{Protocols: free("p")}, &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 2 << 30}}); !errors.Is(err, kernel.ErrLimits) {
		t.Errorf("limits: %v", err)
	}
	for path, c := range map[string]*dubbo.Config{
		"dubbo.protocols.p":                   {Protocols: free("p", "p")},
		"dubbo.protocols.p.port":              {Protocols: []dubbo.Protocol{{ID: "p", Port: -1}}},
		"dubbo.provider.services.s.interface": {Services: []dubbo.Service{{ID: "s"}}},
		"dubbo.provider.services.s.protocol":  {Services: []dubbo.Service{{ID: "s", Interface: "i", Protocols: []string{"p"}}}},
	} {
		var ce *dubbo.ConfigError
		if err := start(c, nil); !errors.As(err, &ce) || ce.Path != path || ce.Line != 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
	t.Setenv(dubbo.ConfigPathEnv, filepath.Join(t.TempDir(), "nothing.yaml"))
	if _, err := dubbo.Start(t.Context(), handlers(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Shutdown lets what is open end, on every protocol; Close does not.
func TestShutdownAndClose(t *testing.T) {
	for name, end := range map[string]func(*dubbo.Server) error{
		"Shutdown": func(s *dubbo.Server) error { return s.Shutdown(context.Background()) },
		"Close":    (*dubbo.Server).Close,
	} {
		t.Run(name, func(t *testing.T) {
			srv := start(t, &dubbo.Config{Protocols: free("a", "b")}, nil)
			var open []*rpc.Bidi[text, text]
			for _, addr := range srv.Addrs() {
				b, err := rpc.CallBidi[text, text](t.Context(), dial(t, "tri://"+addr.String()), greeter+"/greetStream", nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Out.Send(t.Context(), wrapperspb.String("Ada")); err != nil {
					t.Fatal(err)
				}
				if _, err := b.In.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
				open = append(open, b)
			}
			ended := make(chan error, 1)
			go func() { ended <- end(srv) }()
			for _, b := range open {
				if name == "Close" {
					if _, err := b.In.Receive(t.Context()); err == nil {
						t.Error("the stream lives")
					}
					continue
				}
				<-b.Stream().GoingAway()
				if err := b.Out.Send(t.Context(), wrapperspb.String("Bob")); err != nil {
					t.Errorf("in the drain: %v", err)
				}
				if reply, err := b.In.Receive(t.Context()); err != nil || reply.Value != "hello Bob" {
					t.Errorf("in the drain: %v, %v", reply, err)
				}
				if err := b.Out.CloseSend(); err != nil {
					t.Error(err)
				}
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := srv.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A listener that fails ends all, and Wait says which it was. What is open may end.
func TestAListenerFails(t *testing.T) {
	srv, err := (&dubbo.Config{Protocols: free("a", "b")}).Start(t.Context(), handlers(t), &kernel.ServerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var open []*rpc.Bidi[text, text]
	for _, addr := range srv.Addrs() {
		b, err := rpc.CallBidi[text, text](t.Context(), dial(t, "tri://"+addr.String()), greeter+"/greetStream", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Out.Send(t.Context(), wrapperspb.String("Ada")); err != nil {
			t.Fatal(err)
		}
		if _, err := b.In.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		open = append(open, b)
	}
	if err := dubbo.ListenerOf(srv, 0).Close(); err != nil {
		t.Fatal(err)
	}
	for _, b := range open {
		<-b.Stream().GoingAway()
		if err := b.Out.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := b.In.Receive(t.Context()); err != io.EOF {
			t.Errorf("the stream has ended with %v", err)
		}
	}
	var conn *status.ConnError
	if err := srv.Wait(); !errors.As(err, &conn) || !strings.Contains(err.Error(), "dubbo.protocols.a") {
		t.Errorf("%v", err)
	}
	if err := srv.Close(); !errors.As(err, &conn) {
		t.Errorf("afterwards: %v", err)
	}
}

// The default of the memory's limit is for the process: several servers share it.
func TestMemoryIsShared(t *testing.T) {
	before := debug.SetMemoryLimit(10 << 30)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	conns := func(ids ...string) int {
		t.Helper()
		srv := start(t, &dubbo.Config{Protocols: free(ids...)}, nil)
		return len(srv.Servers())
	}
	if conns("a") != 1 || conns("a", "b") != 2 {
		t.Error("a protocol is no server")
	}
	for _, tc := range []struct {
		set, n, want int
	}{{0, 1, 0}, {0, 2, 3_758_096_370}, {1000, 2, 1000}, {kernel.Unlimited, 2, kernel.Unlimited}} {
		l := kernel.Limits{Memory: tc.set}
		dubbo.ShareMemory(&l, tc.n)
		if l.Memory != tc.want {
			t.Errorf("%d for %d servers: %d, want %d", tc.set, tc.n, l.Memory, tc.want)
		}
	}
	debug.SetMemoryLimit(before)
	l := kernel.Limits{}
	if dubbo.ShareMemory(&l, 2); before > 1<<60 && l.Memory != 0 {
		t.Errorf("without a limit of the process: %d", l.Memory)
	}
}
