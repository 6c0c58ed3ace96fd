package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/sluicerpc/sluice/cmd/greeter/greeterpb"
	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

var update = flag.Bool("update", false, "write the files in testdata anew")

// variable is what differs from run to run: dates, and what is left of a time limit.
var variable = regexp.MustCompile(`(date|grpc-timeout): .*`)

// golden compares what a program has printed with a file of testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	got = variable.ReplaceAllString(got, "$1: ...")
	file = "testdata/" + file
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("printed\n%s\nwant, from %s,\n%s", got, file, want)
	}
}

// within is a context for a test.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestDemo(t *testing.T) {
	var client, server bytes.Buffer
	if err := run(within(t), []string{"demo"}, &client, &server); err != nil {
		t.Fatal(err)
	}
	golden(t, "client.txt", client.String())
	golden(t, "server.txt", server.String())
}

func TestTheReadmeShowsTheDemo(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"client.txt", "server.txt"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(page, append([]byte("```text\n"), append(text, "```"...)...)) {
			t.Errorf("README.md has not what is in testdata/%s", file)
		}
	}
}

// started starts a server, and returns its address.
func started(t *testing.T, out io.Writer) string {
	t.Helper()
	srv, err := serve(within(t), "127.0.0.1:0", out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(srv.Shutdown(context.Background()), srv.Wait()); err != nil {
			t.Error(err)
		}
	})
	return srv.Addrs()[0].String()
}

// The same programs talk over other wires, as far as these can carry it: those have no fields of
// gRPC's, and brpc's no end of one direction.
func TestOtherWires(t *testing.T) {
	addr := started(t, io.Discard)
	for _, scheme := range []string{"sluice", "brpc"} {
		t.Run(scheme, func(t *testing.T) {
			var out bytes.Buffer
			if err := run(within(t), []string{"call", "-addr", scheme + "://" + addr}, &out, io.Discard); err != nil {
				t.Fatal(err)
			}
			golden(t, scheme+".txt", out.String())
		})
	}
}

// grpcGreeter is a Greeter of grpc-go's.
type grpcGreeter struct {
	greeterpb.UnimplementedGreeterServer
}

func (grpcGreeter) Greet(_ context.Context, req *greeterpb.GreeterRequest) (*greeterpb.GreeterReply, error) {
	return &greeterpb.GreeterReply{Message: "hello, " + req.Name}, nil
}

// The code that protoc-gen-go-grpc generates stands beside ours, and each talks with the other.
func TestProgramsOfGRPC(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		cc := grpcConn(t)
		stream, err := greeterpb.NewGreeterClient(cc).GreetServerStream(within(t), &greeterpb.GreeterRequest{Name: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			reply, err := stream.Recv()
			if want := fmt.Sprintf("msg%d from server", i+1); err != nil || reply.Message != want {
				t.Fatalf("received %v, %v; want %q", reply, err, want)
			}
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("the end is %v", err)
		}
	})
	t.Run("server", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		greeterpb.RegisterGreeterServer(s, grpcGreeter{})
		served := make(chan error, 1)
		go func() { served <- s.Serve(ln) }()
		c, err := dial(within(t), ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		reply, err := greeterpb.NewGreeterCaller(c).Greet(within(t), &greeterpb.GreeterRequest{Name: "Ada"}, nil)
		if err != nil || reply.Message != "hello, Ada" {
			t.Errorf("the reply is %v, %v", reply, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// grpcConn is a connection of grpc-go's to a server of ours.
func grpcConn(t *testing.T) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(started(t, io.Discard), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	})
	return cc
}

func TestHealthAndReflection(t *testing.T) {
	cc, ctx := grpcConn(t), within(t)
	h, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health is %v, %v", h, err)
	}
	info, err := grpc_reflection_v1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *grpc_reflection_v1.ServerReflectionRequest) *grpc_reflection_v1.ServerReflectionResponse {
		t.Helper()
		if err := info.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := info.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var names []string
	for _, s := range ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}).
		GetListServicesResponse().Service {
		names = append(names, s.Name)
	}
	const want = "grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection org.apache.dubbo.sample.tri.Greeter"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("services are %s; want %s", got, want)
	}
	file := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "org.apache.dubbo.sample.tri.Greeter"}})
	if file.GetFileDescriptorResponse() == nil {
		t.Errorf("the service is described by %v", file)
	}
	if err := info.CloseSend(); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nothing"}, {"demo", "more"}, {"serve", "-addr", "x"}, {"serve", "-addr", "127.0.0.1:70000"}} {
		if err := run(within(t), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestConfiguration(t *testing.T) {
	cfg, err := config("")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Protocols) != 1 || cfg.Protocols[0] != (dubbo.Protocol{ID: "triple", IP: "0.0.0.0", Port: 8888}) || len(cfg.Warnings) > 0 {
		t.Errorf("the configuration is %+v", cfg)
	}
	t.Setenv(dubbo.ConfigPathEnv, "testdata/none.yaml")
	if _, err := config(""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there gives %v", err)
	}
}
