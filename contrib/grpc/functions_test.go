package sluicegrpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/internal/testkit"
)

// A fault is what a function of the program's does, once, when it is armed.
type fault struct {
	kind    string // "panic", "exit" or "block"
	armed   atomic.Bool
	release chan struct{} // ends what blocks
}

var kinds = []string{"panic", "exit", "block"}

func newFault(kind string) *fault { return &fault{kind: kind, release: make(chan struct{})} }

func (f *fault) strike() {
	if !f.armed.CompareAndSwap(true, false) {
		return
	}
	switch f.kind {
	case "panic":
		panic("secret")
	case "exit":
		runtime.Goexit()
	case "block":
		<-f.release
	}
}

// A spoiltStats is a stats handler with a fault at one event.
type spoiltStats struct {
	*fault
	at string
}

func (s *spoiltStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *spoiltStats) HandleConn(context.Context, stats.ConnStats)                       {}

func (s *spoiltStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if s.at == "TagRPC" {
		s.strike()
	}
	return ctx
}

func (s *spoiltStats) HandleRPC(_ context.Context, e stats.RPCStats) {
	at := ""
	switch e.(type) {
	case *stats.InPayload:
		at = "InPayload"
	case *stats.OutHeader:
		at = "OutHeader"
	case *stats.End:
		at = "End"
	}
	if s.at == at {
		s.strike()
	}
}

// A spoiltCodec is a codec with a fault in one direction.
type spoiltCodec struct {
	jsonCodec
	*fault
	encodes bool
}

func (c spoiltCodec) Marshal(v any) (mem.BufferSlice, error) {
	if c.encodes {
		c.strike()
	}
	return c.jsonCodec.Marshal(v)
}

func (c spoiltCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if !c.encodes {
		c.strike()
	}
	return c.jsonCodec.Unmarshal(data, v)
}

// logged has what the library logs by default go to a journal until the test ends.
func logged(t *testing.T) *testkit.Journal {
	j, before := &testkit.Journal{}, slog.Default()
	slog.SetDefault(j.Logger())
	t.Cleanup(func() { slog.SetDefault(before) })
	return j
}

// alone runs f in a goroutine, as a program may that recovers.
func alone(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	<-done
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// What a function of the program's does at the server harms its own RPC. A neighbour on the
// connection goes on, and the client is told.
func TestFunctionsOfTheServer(t *testing.T) {
	for name, spoil := range map[string]func(f *fault, o *sluicegrpc.ServerOptions){
		"unary interceptor": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.UnaryInterceptors = append(o.UnaryInterceptors, func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				f.strike()
				return h(ctx, req)
			})
		},
		"stream interceptor": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.StreamInterceptors = append(o.StreamInterceptors, func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
				f.strike()
				return h(srv, ss)
			})
		},
		"TagRPC": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.StatsHandlers = append(o.StatsHandlers, &spoiltStats{f, "TagRPC"})
		},
		"InPayload": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.StatsHandlers = append(o.StatsHandlers, &spoiltStats{f, "InPayload"})
		},
		"OutHeader": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.StatsHandlers = append(o.StatsHandlers, &spoiltStats{f, "OutHeader"})
		},
		"End": func(f *fault, o *sluicegrpc.ServerOptions) {
			o.StatsHandlers = append(o.StatsHandlers, &spoiltStats{f, "End"})
		},
		"Marshal":   func(f *fault, o *sluicegrpc.ServerOptions) { o.Codec = spoiltCodec{fault: f, encodes: true} },
		"Unmarshal": func(f *fault, o *sluicegrpc.ServerOptions) { o.Codec = spoiltCodec{fault: f} },
	} {
		for _, kind := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				j, f := logged(t), newFault(kind)
				so := &sluicegrpc.ServerOptions{Codec: jsonCodec{}}
				spoil(f, so)
				c := testgrpc.NewTestServiceClient(worlds[0].start(t, so,
					&sluicegrpc.ConnOptions{CallOptions: []grpc.CallOption{grpc.ForceCodecV2(jsonCodec{})}}, (&service{}).register))
				neighbour := testkit.Must[testgrpc.TestService_FullDuplexCallClient](t)(c.FullDuplexCall(bounded(t)))
				echoes(t, neighbour, "before")
				f.armed.Store(true)
				ctx := bounded(t)
				if kind == "block" {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
				}
				var err error
				if name == "stream interceptor" {
					st := testkit.Must[testgrpc.TestService_FullDuplexCallClient](t)(c.FullDuplexCall(ctx))
					_, err = st.Recv()
				} else {
					_, err = c.UnaryCall(ctx, request("x"))
				}
				want := map[string]codes.Code{"panic": codes.Internal, "exit": codes.Internal, "block": codes.DeadlineExceeded}[kind]
				wantCode(t, err, want)
				echoes(t, neighbour, "after")
				close(f.release)
				if kind != "block" {
					// The client may have its answer before the server has logged.
					eventually(t, "no panic was logged", func() bool { return strings.Contains(j.String(), "panicked") })
				}
				_, err = c.UnaryCall(bounded(t), request("y"))
				ok(t, err)
				end(t, neighbour)
			})
		}
	}
}

// echoes sends text, and checks that it comes back.
func echoes(t *testing.T, st testgrpc.TestService_FullDuplexCallClient, text string) {
	t.Helper()
	ok(t, st.Send(outRequest(text)))
	got, err := st.Recv()
	ok(t, err)
	if string(got.Payload.Body) != text {
		t.Errorf("%q has come back as %q", text, got.Payload.Body)
	}
}

// end ends an echo in order.
func end(t *testing.T, st testgrpc.TestService_FullDuplexCallClient) {
	t.Helper()
	ok(t, st.CloseSend())
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A codec or stats handler that panics while a client receives or sends takes a message along.
// What comes behind it does not look like all that there was.
func TestAClientsStreamEndsWithTheMessageThatIsLost(t *testing.T) {
	for name, spoil := range map[string]func(f *fault, o *sluicegrpc.ConnOptions){
		"Marshal": func(f *fault, o *sluicegrpc.ConnOptions) {
			o.CallOptions = []grpc.CallOption{grpc.ForceCodecV2(spoiltCodec{fault: f, encodes: true})}
		},
		"Unmarshal": func(f *fault, o *sluicegrpc.ConnOptions) {
			o.CallOptions = []grpc.CallOption{grpc.ForceCodecV2(spoiltCodec{fault: f})}
		},
		"InPayload": func(f *fault, o *sluicegrpc.ConnOptions) {
			o.StatsHandlers = []stats.Handler{&spoiltStats{f, "InPayload"}}
		},
	} {
		for _, kind := range kinds[:2] {
			t.Run(name+"/"+kind, func(t *testing.T) {
				logged(t)
				f := newFault(kind)
				co := &sluicegrpc.ConnOptions{CallOptions: []grpc.CallOption{grpc.ForceCodecV2(jsonCodec{})}}
				spoil(f, co)
				c := testgrpc.NewTestServiceClient(worlds[0].start(t, &sluicegrpc.ServerOptions{Codec: jsonCodec{}}, co, (&service{}).register))
				st := testkit.Must[testgrpc.TestService_FullDuplexCallClient](t)(c.FullDuplexCall(bounded(t)))
				echoes(t, st, "one")
				f.armed.Store(true)
				alone(func() {
					_ = st.Send(outRequest("two"))
					_, _ = st.Recv()
				})
				_ = st.Send(outRequest("three"))
				_ = st.CloseSend()
				for range 3 {
					if m, err := st.Recv(); err == nil || errors.Is(err, io.EOF) {
						t.Fatalf("behind what is lost: %v, %v", m, err)
					}
				}
				_, err := c.UnaryCall(bounded(t), request("on"))
				ok(t, err)
			})
		}
	}
}

// A stream's end that nobody waits for is told by a goroutine that is not the program's. What is
// told panics, and the process lives.
func TestTheEndOfAContextIsToldToFunctionsThatPanic(t *testing.T) {
	for _, kind := range kinds {
		for _, how := range []string{"stats.Handler", "grpc.OnFinish"} {
			t.Run(how+"/"+kind, func(t *testing.T) {
				j, f := logged(t), newFault(kind)
				co := &sluicegrpc.ConnOptions{StatsHandlers: []stats.Handler{&spoiltStats{f, "End"}}}
				if how == "grpc.OnFinish" {
					co = &sluicegrpc.ConnOptions{CallOptions: []grpc.CallOption{grpc.OnFinish(func(error) { f.strike() })}}
				}
				c := testgrpc.NewTestServiceClient(worlds[0].start(t, nil, co, (&service{}).register))
				ctx, cancel := context.WithCancel(bounded(t))
				_, err := c.FullDuplexCall(ctx)
				ok(t, err)
				f.armed.Store(true)
				cancel()
				eventually(t, "it was not called", func() bool { return !f.armed.Load() })
				if kind != "block" {
					eventually(t, "nothing was logged", func() bool {
						return strings.Contains(j.String(), "hook panicked") && strings.Contains(j.String(), how)
					})
				}
				_, err = c.UnaryCall(bounded(t), request("on"))
				ok(t, err)
				close(f.release)
			})
		}
	}
}

// A stats handler that is told of the header may set a trailer.
func TestAStatsHandlerMaySetATrailer(t *testing.T) {
	c := testgrpc.NewTestServiceClient(worlds[0].start(t, &sluicegrpc.ServerOptions{StatsHandlers: []stats.Handler{&trailing{}}}, nil, (&service{}).register))
	var trailer metadata.MD
	_, err := c.UnaryCall(bounded(t), request("x"), grpc.Trailer(&trailer))
	ok(t, err)
	wantMD(t, "trailer", trailer, "told", "yes")
}

type trailing struct{ spoiltStats }

func (*trailing) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (*trailing) HandleRPC(ctx context.Context, e stats.RPCStats) {
	if _, ok := e.(*stats.OutHeader); ok {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("told", "yes"))
	}
}

// A codec's panic is the error of what it was called for, also in the goroutine of the client's
// program.
func TestACodecsPanicIsAnError(t *testing.T) {
	for what, encodes := range map[string]bool{"encoded": true, "decoded": false} {
		logged(t)
		f := newFault("panic")
		c := testgrpc.NewTestServiceClient(worlds[0].start(t, &sluicegrpc.ServerOptions{Codec: jsonCodec{}}, &sluicegrpc.ConnOptions{
			CallOptions: []grpc.CallOption{grpc.ForceCodecV2(spoiltCodec{fault: f, encodes: encodes})},
		}, (&service{}).register))
		f.armed.Store(true)
		err := errors.New("the panic has come through")
		alone(func() { _, err = c.UnaryCall(bounded(t), request("x")) })
		if want := "the message can't be " + what + ": the codec panicked: secret"; !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
