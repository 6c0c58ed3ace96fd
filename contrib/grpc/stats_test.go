package sluicegrpc_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
)

// A recorder keeps what a stats handler is told, an RPC a line.
type recorder struct {
	t     *testing.T
	ended chan string
	blind bool // the address is not known
}

type rpcLog struct {
	mu   sync.Mutex
	text strings.Builder
}

type logKey struct{ of *recorder }

func newRecorder(t *testing.T) *recorder { return &recorder{t: t, ended: make(chan string, 10)} }

func (r *recorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *recorder) HandleConn(context.Context, stats.ConnStats)                       {}

func (r *recorder) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	l := &rpcLog{}
	l.text.WriteString(strings.TrimPrefix(i.FullMethodName, "/grpc.testing.TestService/"))
	return context.WithValue(ctx, logKey{r}, l)
}

func (r *recorder) HandleRPC(ctx context.Context, s stats.RPCStats) {
	l := ctx.Value(logKey{r}).(*rpcLog)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := s.(type) {
	case *stats.Begin:
		fmt.Fprintf(&l.text, " Begin %v %v", s.IsClientStream, s.IsServerStream)
	case *stats.InHeader:
		fmt.Fprintf(&l.text, " InHeader %s", s.Header["k"])
		if (s.RemoteAddr == nil) != r.blind {
			r.t.Errorf("the address in InHeader is %v", s.RemoteAddr)
		}
	case *stats.OutHeader:
		fmt.Fprintf(&l.text, " OutHeader %s", s.Header["k"])
	case *stats.InPayload:
		fmt.Fprintf(&l.text, " InPayload %d", s.Length)
	case *stats.OutPayload:
		fmt.Fprintf(&l.text, " OutPayload %d", s.Length)
	case *stats.InTrailer:
		fmt.Fprintf(&l.text, " InTrailer %s", s.Trailer["t"])
	case *stats.OutTrailer:
		fmt.Fprintf(&l.text, " OutTrailer %s", s.Trailer["t"])
	case *stats.End:
		fmt.Fprintf(&l.text, " End %v", status.Code(s.Error))
		if s.EndTime.Before(s.BeginTime) || s.BeginTime.IsZero() {
			r.t.Errorf("from %v to %v", s.BeginTime, s.EndTime)
		}
		r.ended <- l.text.String()
	}
}

// Stats handlers are told of each RPC from its beginning to its end, on both sides.
func TestStatsHandlers(t *testing.T) {
	srv, client, second := newRecorder(t), newRecorder(t), newRecorder(t)
	w := worlds[0]
	c := testgrpc.NewTestServiceClient(w.start(t, &sluicegrpc.ServerOptions{StatsHandlers: []stats.Handler{srv}},
		&sluicegrpc.ConnOptions{StatsHandlers: []stats.Handler{client, second}},
		(&service{
			unary: func(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
				ok(t, grpc.SetHeader(ctx, metadata.Pairs("k", "v")))
				ok(t, grpc.SetTrailer(ctx, metadata.Pairs("t", "v")))
				if len(req.Payload.Body) == 0 {
					return nil, status.Error(codes.NotFound, "")
				}
				return &testgrpc.SimpleResponse{Payload: req.Payload}, nil
			},
			bidi: func(st testgrpc.TestService_FullDuplexCallServer) error {
				ok(t, st.SetHeader(metadata.Pairs("k", "v")))
				st.SetTrailer(metadata.Pairs("t", "v"))
				return echo(st)
			},
		}).register))
	ctx := metadata.AppendToOutgoingContext(bounded(t), "k", "v")
	wants := func(atServer, atClient string) {
		t.Helper()
		if got := <-srv.ended; got != atServer {
			t.Errorf("the server's:\n%s, want\n%s", got, atServer)
		}
		if got := <-client.ended; got != atClient {
			t.Errorf("the client's:\n%s, want\n%s", got, atClient)
		}
		if got := <-second.ended; got != atClient {
			t.Errorf("the second handler's:\n%s, want\n%s", got, atClient)
		}
	}

	_, err := c.UnaryCall(ctx, request("hello"))
	ok(t, err)
	wants("UnaryCall InHeader [v] Begin false false InPayload 9 OutHeader [v] OutPayload 9 OutTrailer [v] End OK",
		"UnaryCall Begin false false OutHeader [v] OutPayload 9 InHeader [v] InPayload 9 InTrailer [v] End OK")

	_, err = c.UnaryCall(ctx, request(""))
	wantCode(t, err, codes.NotFound)
	wants("UnaryCall InHeader [v] Begin false false InPayload 2 OutTrailer [v] End NotFound",
		"UnaryCall Begin false false OutHeader [v] OutPayload 2 InTrailer [v] End NotFound")

	st, err := c.FullDuplexCall(ctx)
	ok(t, err)
	for range 2 {
		ok(t, st.Send(outRequest("hello")))
		_, err := st.Recv()
		ok(t, err)
	}
	ok(t, st.CloseSend())
	if _, err := st.Recv(); err != io.EOF {
		t.Error(err)
	}
	wants("FullDuplexCall InHeader [v] Begin true true InPayload 9 OutHeader [v] OutPayload 9 InPayload 9 OutPayload 9 OutTrailer [v] End OK",
		"FullDuplexCall Begin true true OutHeader [v] OutPayload 9 InHeader [v] InPayload 9 OutPayload 9 InPayload 9 InTrailer [v] End OK")

	// A call that is not sent has an end too, and so has a stream that nobody reads to its end.
	if _, err = c.UnaryCall(ctx, request(""), unknownOption{}); err == nil {
		t.Error("an unknown option is no error")
	}
	if got, want := <-client.ended, "UnaryCall Begin false false End Unimplemented"; got != want {
		t.Errorf("the client's:\n%s, want\n%s", got, want)
	}
	<-second.ended
	ctx, cancel := context.WithCancel(ctx)
	_, err = c.FullDuplexCall(ctx)
	ok(t, err)
	cancel()
	if got, want := <-client.ended, "FullDuplexCall Begin true true OutHeader [v] InTrailer [] End Canceled"; got != want {
		t.Errorf("the client's:\n%s, want\n%s", got, want)
	}
}
