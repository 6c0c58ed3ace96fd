package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"dubbo.apache.org/dubbo-go/v3/common/constant"
	"dubbo.apache.org/dubbo-go/v3/protocol"
	tri "dubbo.apache.org/dubbo-go/v3/protocol/triple/triple_protocol"
	"dubbo.apache.org/dubbo-go/v3/server"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// port is where the server listens. In its namespace all are free.
const port = 20000

// beside serves while a program runs, whose output and end are the command's.
func beside(ctx context.Context, program string, args ...string) error {
	if err := loopback(); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- serve() }() // ends with the process: dubbo-go's Serve has no other end
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		select {
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// loopback brings up the loopback interface, which a new namespace has down.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func serve() error {
	srv, err := server.NewServer(server.WithServerProtocol(
		protocol.WithTriple(), protocol.WithIp("127.0.0.1"), protocol.WithPort(port),
	))
	if err != nil {
		return err
	}
	err = errors.Join(
		srv.Register(&Greeter{}, service(greeter)),
		srv.Register(&Greeter{}, service(versioned), server.WithVersion(version), server.WithGroup(group)),
	)
	if err != nil {
		return err
	}
	return srv.Serve()
}

// A Greeter has the methods. dubbo-go wants its name, and those of methods, to be exported.
type Greeter struct{}

func newName() interface{} { return &wrapperspb.StringValue{} }

// service describes the methods as dubbo-go's generator does.
func service(name string) *server.ServiceInfo {
	return &server.ServiceInfo{
		InterfaceName: name,
		ServiceType:   (*interface{})(nil),
		Methods: []server.MethodInfo{
			{
				Name: "greet", Type: constant.CallUnary, ReqInitFunc: newName,
				MethodFunc: func(ctx context.Context, args []interface{}, h interface{}) (interface{}, error) {
					reply, err := h.(*Greeter).Greet(ctx, args[0].(*wrapperspb.StringValue))
					if err != nil {
						return nil, err
					}
					return tri.NewResponse(reply), nil
				},
			},
			{
				Name: "greetClientStream", Type: constant.CallClientStream,
				StreamInitFunc: func(s interface{}) interface{} { return s },
				MethodFunc: func(_ context.Context, args []interface{}, h interface{}) (interface{}, error) {
					reply, err := h.(*Greeter).GreetClientStream(args[0].(*tri.ClientStream))
					if err != nil {
						return nil, err
					}
					return tri.NewResponse(reply), nil
				},
			},
			{
				Name: "greetServerStream", Type: constant.CallServerStream, ReqInitFunc: newName,
				StreamInitFunc: func(s interface{}) interface{} { return s },
				MethodFunc: func(ctx context.Context, args []interface{}, h interface{}) (interface{}, error) {
					return nil, h.(*Greeter).GreetServerStream(ctx, args[0].(*wrapperspb.StringValue), args[1].(*tri.ServerStream))
				},
			},
			{
				Name: "greetStream", Type: constant.CallBidiStream,
				StreamInitFunc: func(s interface{}) interface{} { return s },
				MethodFunc: func(ctx context.Context, args []interface{}, h interface{}) (interface{}, error) {
					return nil, h.(*Greeter).GreetStream(ctx, args[0].(*tri.BidiStream))
				},
			},
		},
	}
}

// Greet answers some names with what they ask for.
func (g *Greeter) Greet(ctx context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	switch name.Value {
	case "error":
		return nil, tri.NewError(tri.CodeFailedPrecondition, errors.New("100% no: \u00e9"))
	case "plain error":
		return nil, errors.New("just an error")
	case "sleep":
		<-ctx.Done()
		return nil, ctx.Err()
	case "metadata":
		attachments, _ := ctx.Value(constant.AttachmentKey).(map[string]interface{})
		values, _ := attachments["x-echo"].([]string)
		return wrapperspb.String(strings.Join(values, "|")), nil
	}
	return wrapperspb.String("hello " + name.Value), nil
}

// GreetClientStream counts names.
func (g *Greeter) GreetClientStream(in *tri.ClientStream) (*wrapperspb.StringValue, error) {
	n := 0
	for in.Receive(&wrapperspb.StringValue{}) {
		n++
	}
	return wrapperspb.String(fmt.Sprintf("hello all %d", n)), in.Err()
}

// GreetServerStream greets many times.
func (g *Greeter) GreetServerStream(ctx context.Context, name *wrapperspb.StringValue, out *tri.ServerStream) error {
	for range many {
		reply, err := g.Greet(ctx, name)
		if err != nil {
			return err
		}
		if err := out.Send(reply); err != nil {
			return err
		}
	}
	return nil
}

// GreetStream greets each name.
func (g *Greeter) GreetStream(ctx context.Context, both *tri.BidiStream) error {
	for {
		var name wrapperspb.StringValue
		if err := both.Receive(&name); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		reply, err := g.Greet(ctx, &name)
		if err != nil {
			return err
		}
		if err := both.Send(reply); err != nil {
			return err
		}
	}
}
