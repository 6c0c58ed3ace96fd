package tripletest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// Cases are the checks of any server, in their order.
func Cases() []check.Case {
	return []check.Case{
		{Name: "unary", Run: unary},
		{Name: "client stream", Run: clientStream},
		{Name: "server stream", Run: serverStream},
		{Name: "bidi stream", Run: bidiStream},
		{Name: "version and group", Run: versions},
		{Name: "error", Run: failing},
		{Name: "streams that fail", Run: failingStreams},
		{Name: "unknown method", Run: unknownMethod},
		{Name: "metadata", Run: echoed},
		{Name: "large messages", Run: large},
		{Name: "compressed requests", Run: compressed},
		{Name: "deadline", Run: deadline},
		{Name: "cancel", Run: cancelled},
	}
}

// DubboGoCases are Cases, and what only a server of dubbo-go's does.
func DubboGoCases() []check.Case {
	return append(Cases(), check.Case{Name: "plain error", Run: plainError})
}

func say(ctx context.Context, c kernel.Caller, service, name string, o kernel.CallOptions) (string, error) {
	reply, err := rpc.Call[text](ctx, c, service+"/greet", wrapperspb.String(name), &rpc.CallOptions{CallOptions: o})
	return reply.GetValue(), err
}

// wants checks the reply to a name.
func wants(ctx context.Context, c kernel.Caller, service, name, want string, o kernel.CallOptions) error {
	got, err := say(ctx, c, service, name, o)
	if err != nil {
		return err
	}
	return check.Equal("the reply", got, want)
}

// isCode is an error unless err has a code and a reason.
func isCode(err error, code status.Code, reason string) error {
	var e *status.StreamError
	if !errors.As(err, &e) {
		return fmt.Errorf("the error is %v", err)
	}
	return errors.Join(check.Equal("the code", e.Code, code), check.Equal("the reason", e.Reason, reason))
}

func unary(ctx context.Context, c *kernel.Client) error {
	return wants(ctx, c, greeter, "Ada", "hello Ada", kernel.CallOptions{})
}

func clientStream(ctx context.Context, c *kernel.Client) error {
	s, err := rpc.CallClientStream[text, text](ctx, c, greeter+"/greetClientStream", nil)
	if err != nil {
		return err
	}
	for range many {
		if err := s.Out.Send(ctx, wrapperspb.String("Ada")); err != nil {
			return err
		}
	}
	reply, err := s.CloseAndReceive(ctx)
	if err != nil {
		return err
	}
	return check.Equal("the reply", reply.Value, fmt.Sprintf("hello all %d", many))
}

func serverStream(ctx context.Context, c *kernel.Client) error {
	in, err := rpc.CallServerStream[text](ctx, c, greeter+"/greetServerStream", wrapperspb.String("Ada"), nil)
	if err != nil {
		return err
	}
	n := 0
	for reply, err := range in.All(ctx) {
		if err == nil {
			err = check.Equal("a reply", reply.Value, "hello Ada")
		}
		if err != nil {
			return err
		}
		n++
	}
	return check.Equal("the number of replies", n, many)
}

func bidiStream(ctx context.Context, c *kernel.Client) error {
	b, err := rpc.CallBidi[text, text](ctx, c, greeter+"/greetStream", nil)
	if err != nil {
		return err
	}
	for i := range many {
		name := fmt.Sprint("Ada ", i)
		if err := b.Out.Send(ctx, wrapperspb.String(name)); err != nil {
			return err
		}
		reply, err := b.In.Receive(ctx)
		if err != nil {
			return err
		}
		if err := check.Equal("a reply", reply.Value, "hello "+name); err != nil {
			return err
		}
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	if _, err := b.In.Receive(ctx); err != io.EOF {
		return fmt.Errorf("behind the last reply: %v", err)
	}
	return nil
}

func versions(ctx context.Context, c *kernel.Client) error {
	own := dubbo.Reference{Version: version, Group: group}.Caller(c)
	if err := wants(ctx, own, versioned, "Ada", "hello Ada", kernel.CallOptions{}); err != nil {
		return err
	}
	for _, r := range []dubbo.Reference{{}, {Version: version}, {Group: group}, {Version: "1.0.1", Group: group}} {
		_, err := say(ctx, r.Caller(c), versioned, "Ada", kernel.CallOptions{})
		if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
			return fmt.Errorf("version %q, group %q: %v", r.Version, r.Group, err)
		}
	}
	return nil
}

func failing(ctx context.Context, c *kernel.Client) error {
	_, err := say(ctx, c, greeter, "error", kernel.CallOptions{})
	return isCode(err, status.FailedPrecondition, reason)
}

// failingStreams checks that errors end streams with their code, before and behind messages.
func failingStreams(ctx context.Context, c *kernel.Client) error {
	in, err := rpc.CallServerStream[text](ctx, c, greeter+"/greetServerStream", wrapperspb.String("error"), nil)
	if err != nil {
		return err
	}
	if _, err = in.Receive(ctx); isCode(err, status.FailedPrecondition, reason) != nil {
		return fmt.Errorf("a server stream: %w", isCode(err, status.FailedPrecondition, reason))
	}
	b, err := rpc.CallBidi[text, text](ctx, c, greeter+"/greetStream", nil)
	if err != nil {
		return err
	}
	for _, name := range []string{"Ada", "error"} {
		if err := b.Out.Send(ctx, wrapperspb.String(name)); err != nil {
			return err
		}
	}
	if _, err := b.In.Receive(ctx); err != nil {
		return fmt.Errorf("before the error: %w", err)
	}
	if _, err = b.In.Receive(ctx); isCode(err, status.FailedPrecondition, reason) != nil {
		return fmt.Errorf("a bidi stream: %w", isCode(err, status.FailedPrecondition, reason))
	}
	return nil
}

func unknownMethod(ctx context.Context, c *kernel.Client) error {
	_, err := rpc.Call[text](ctx, c, greeter+"/greetNobody", wrapperspb.String("Ada"), nil)
	if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		return fmt.Errorf("the error is %v", err)
	}
	return nil
}

// echoed checks that metadata comes as attachments.
func echoed(ctx context.Context, c *kernel.Client) error {
	md := metadata.MD{{Key: "x-echo", Value: "one"}, {Key: "x-echo", Value: "two"}}
	return wants(ctx, c, greeter, "metadata", "one|two", kernel.CallOptions{Metadata: md})
}

// large checks messages of more than a frame and a window.
func large(ctx context.Context, c *kernel.Client) error {
	name := strings.Repeat("0123456789abcdef", 128<<10) // 2 MiB
	return wants(ctx, c, greeter, name, "hello "+name, kernel.CallOptions{})
}

func compressed(ctx context.Context, c *kernel.Client) error {
	return wants(ctx, c, greeter, strings.Repeat("Ada ", 100)+".", "hello "+strings.Repeat("Ada ", 100)+".", kernel.CallOptions{Compression: pool.Gzip})
}

// deadline checks a call whose time is over. The server's time is the same, and its handler's error
// has no code there: it may come first.
func deadline(ctx context.Context, c *kernel.Client) error {
	_, err := say(ctx, c, greeter, "sleep", kernel.CallOptions{Timeout: 100 * time.Millisecond})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return isCode(err, plain, context.DeadlineExceeded.Error())
}

// cancelled checks that the connection works on behind a call that was given up.
func cancelled(ctx context.Context, c *kernel.Client) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := rpc.CallBidi[text, text](inner, c, greeter+"/greetStream", nil)
	if err != nil {
		return err
	}
	if err := b.Out.Send(ctx, wrapperspb.String("Ada")); err != nil {
		return err
	}
	if _, err := b.In.Receive(ctx); err != nil {
		return err
	}
	cancel()
	if _, err := b.In.Receive(ctx); !errors.Is(err, &status.StreamError{Code: status.Cancelled}) {
		return fmt.Errorf("the stream has ended with %v", err)
	}
	return unary(ctx, c)
}

// plainError checks an error without a code.
func plainError(ctx context.Context, c *kernel.Client) error {
	_, err := say(ctx, c, greeter, "plain error", kernel.CallOptions{})
	return isCode(err, plain, "just an error")
}
