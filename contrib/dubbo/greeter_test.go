package dubbo_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	_ "github.com/sluicerpc/sluice/rpc/protocodec" // carries the messages
	"github.com/sluicerpc/sluice/status"
)

const greeter = "org.apache.dubbo.sample.tri.Greeter"

// On the wire a GreeterRequest{name = 1} and a GreeterReply{message = 1} are StringValues.
type text = *wrapperspb.StringValue

// registerGreeter registers the four methods.
func registerGreeter(r rpc.Registrar) error {
	greet := func(_ context.Context, name text) (text, error) { return wrapperspb.String("hello " + name.Value), nil }
	return errors.Join(
		rpc.HandleUnary(r, greeter+"/greet", greet, nil),
		rpc.HandleClientStream(r, greeter+"/greetClientStream", func(ctx context.Context, in *rpc.Source[text]) (text, error) {
			var names []string
			for name, err := range in.All(ctx) {
				if err != nil {
					return nil, err
				}
				names = append(names, name.Value)
			}
			return greet(ctx, wrapperspb.String(strings.Join(names, ", ")))
		}, nil),
		rpc.HandleServerStream(r, greeter+"/greetServerStream", func(ctx context.Context, name text, out *rpc.Sink[text]) error {
			for range 3 {
				if err := out.Send(ctx, wrapperspb.String("hello "+name.Value)); err != nil {
					return err
				}
			}
			return nil
		}, nil),
		rpc.HandleBidi(r, greeter+"/greetStream", func(ctx context.Context, b *rpc.Bidi[text, text]) error {
			for name, err := range b.In.All(ctx) {
				if err != nil {
					return err
				}
				if err := b.Out.Send(ctx, wrapperspb.String("hello "+name.Value)); err != nil {
					return err
				}
			}
			return nil
		}, nil),
	)
}

// greetings calls the four methods, and returns what they say.
func greetings(ctx context.Context, c kernel.Caller) (said [4]string, err error) {
	reply, err := rpc.Call[text](ctx, c, greeter+"/greet", wrapperspb.String("Ada"), nil)
	if err != nil {
		return said, err
	}
	said[0] = reply.Value
	up, err := rpc.CallClientStream[text, text](ctx, c, greeter+"/greetClientStream", nil)
	if err != nil {
		return said, err
	}
	for _, name := range []string{"Ada", "Bob"} {
		if err := up.Out.Send(ctx, wrapperspb.String(name)); err != nil {
			return said, err
		}
	}
	if reply, err = up.CloseAndReceive(ctx); err != nil {
		return said, err
	}
	said[1] = reply.Value
	down, err := rpc.CallServerStream[text](ctx, c, greeter+"/greetServerStream", wrapperspb.String("Ada"), nil)
	if err != nil {
		return said, err
	}
	for reply, err := range down.All(ctx) {
		if err != nil {
			return said, err
		}
		said[2] += reply.Value + ";"
	}
	both, err := rpc.CallBidi[text, text](ctx, c, greeter+"/greetStream", nil)
	if err != nil {
		return said, err
	}
	if err := both.Out.Send(ctx, wrapperspb.String("Ada")); err != nil {
		return said, err
	}
	if reply, err = both.In.Receive(ctx); err != nil {
		return said, err
	}
	said[3] = reply.Value
	if err := both.Out.CloseSend(); err != nil {
		return said, err
	}
	if _, err := both.In.Receive(ctx); err != io.EOF {
		return said, errors.Join(errors.New("greetStream has not ended in order"), err)
	}
	return said, nil
}

var allGreetings = [4]string{"hello Ada", "hello Ada, Bob", "hello Ada;hello Ada;hello Ada;", "hello Ada"}

// dial returns a client of a server.
func dial(t *testing.T, target string) *kernel.Client {
	t.Helper()
	c, err := kernel.NewClient(target, &kernel.ClientOptions{
		Protocols: []frame.Protocol{triple.Protocol{}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// wantGreetings checks that the four methods answer.
func wantGreetings(t *testing.T, c kernel.Caller) {
	t.Helper()
	said, err := greetings(t.Context(), c)
	if err != nil || said != allGreetings {
		t.Errorf("%q, %v", said, err)
	}
}

// wantRefused checks that a call is refused as one for a service that there is not.
func wantRefused(t *testing.T, c kernel.Caller) {
	t.Helper()
	_, err := rpc.Call[text](t.Context(), c, greeter+"/greet", wrapperspb.String("Ada"), nil)
	if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		t.Errorf("%v", err)
	}
}
