package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dubbo.apache.org/dubbo-go/v3/client"
	"dubbo.apache.org/dubbo-go/v3/common/constant"
	tri "dubbo.apache.org/dubbo-go/v3/protocol/triple/triple_protocol"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// methods are the greeter's, and one that it does not have.
var methods = []string{"greet", "greetClientStream", "greetServerStream", "greetStream", "greetNobody"}

// A peer is a server that is checked.
type peer struct{ url string }

// greet checks the server at addr, and prints a line for each case.
func greet(ctx context.Context, addr string) error {
	p := &peer{"tri://" + addr}
	failed := 0
	for _, c := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"unary", p.unary}, {"client stream", p.clientStream}, {"server stream", p.serverStream}, {"bidi stream", p.bidiStream},
		{"version and group", p.versions}, {"error", p.failing}, {"retries", p.retries}, {"streams that fail", p.failingStreams},
		{"unknown method", p.unknownMethod}, {"attachments", p.attachments}, {"large messages", p.large}, {"deadline", p.deadline},
	} {
		result := "ok"
		if err := c.run(ctx); err != nil {
			failed++
			result = err.Error()
		}
		fmt.Printf("%s: %s\n", c.name, result)
	}
	if failed > 0 {
		return fmt.Errorf("%d cases have failed", failed)
	}
	return nil
}

// connect makes a connection to a service, with dubbo-go's defaults but for opts.
func (p *peer) connect(service string, opts ...client.ReferenceOption) (*client.Connection, error) {
	c, err := client.NewClient(client.WithClientURL(p.url))
	if err != nil {
		return nil, err
	}
	return c.DialWithInfo(service, &client.ClientInfo{InterfaceName: service, MethodNames: methods}, opts...)
}

// say makes the unary call.
func say(ctx context.Context, c *client.Connection, name string) (string, error) {
	var reply wrapperspb.StringValue
	err := c.CallUnary(ctx, []interface{}{wrapperspb.String(name)}, &reply, "greet")
	return reply.Value, err
}

// wants makes the unary call on a new connection, and checks the reply.
func (p *peer) wants(ctx context.Context, name, want string, opts ...client.ReferenceOption) error {
	c, err := p.connect(greeter, opts...)
	if err != nil {
		return err
	}
	got, err := say(ctx, c, name)
	if err == nil && got != want {
		err = fmt.Errorf("the reply to %q is %q, not %q", name, got, want)
	}
	return err
}

// isCode is an error unless err has a code, and a text in it.
func isCode(err error, code tri.Code, text string) error {
	var e *tri.Error
	if !errors.As(err, &e) || e.Code() != code || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("the error is %v, not %v with %q", err, code, text)
	}
	return nil
}

func (p *peer) unary(ctx context.Context) error { return p.wants(ctx, "Ada", "hello Ada") }

func (p *peer) clientStream(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	raw, err := c.CallClientStream(ctx, "greetClientStream")
	if err != nil {
		return err
	}
	s := raw.(*tri.ClientStreamForClient)
	for range many {
		if err := s.Send(wrapperspb.String("Ada")); err != nil {
			return err
		}
	}
	var reply wrapperspb.StringValue
	if err := s.CloseAndReceive(tri.NewResponse(&reply)); err != nil {
		return err
	}
	if want := fmt.Sprintf("hello all %d", many); reply.Value != want {
		return fmt.Errorf("the reply is %q, not %q", reply.Value, want)
	}
	return nil
}

func (p *peer) serverStream(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	raw, err := c.CallServerStream(ctx, wrapperspb.String("Ada"), "greetServerStream")
	if err != nil {
		return err
	}
	s := raw.(*tri.ServerStreamForClient)
	n := 0
	for {
		var reply wrapperspb.StringValue
		if !s.Receive(&reply) {
			break
		}
		if reply.Value != "hello Ada" {
			return fmt.Errorf("reply %d is %q", n, reply.Value)
		}
		n++
	}
	if n != many {
		return fmt.Errorf("%d replies, not %d: %v", n, many, s.Err())
	}
	return errors.Join(s.Err(), s.Close())
}

func (p *peer) bidiStream(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	raw, err := c.CallBidiStream(ctx, "greetStream")
	if err != nil {
		return err
	}
	s := raw.(*tri.BidiStreamForClient)
	for i := range many {
		name := fmt.Sprint("Ada ", i)
		if err := s.Send(wrapperspb.String(name)); err != nil {
			return err
		}
		var reply wrapperspb.StringValue
		if err := s.Receive(&reply); err != nil {
			return err
		}
		if reply.Value != "hello "+name {
			return fmt.Errorf("reply %d is %q", i, reply.Value)
		}
	}
	if err := s.CloseRequest(); err != nil {
		return err
	}
	if err := s.Receive(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("behind the last reply: %v", err)
	}
	return s.CloseResponse()
}

// versions checks that the one service takes any version and group, and the other its own alone.
func (p *peer) versions(ctx context.Context) error {
	if err := p.wants(ctx, "Ada", "hello Ada", client.WithVersion("7"), client.WithGroup("any")); err != nil {
		return fmt.Errorf("a service without them: %w", err)
	}
	for _, x := range []struct {
		version, group string
		served         bool
	}{{version, group, true}, {version, "", false}, {"", group, false}, {"", "", false}, {"1.0.1", group, false}} {
		c, err := p.connect(versioned, client.WithVersion(x.version), client.WithGroup(x.group))
		if err != nil {
			return err
		}
		_, err = say(ctx, c, "Ada")
		if !x.served {
			err = isCode(err, tri.CodeUnimplemented, versioned)
		}
		if err != nil {
			return fmt.Errorf("version %q, group %q: %w", x.version, x.group, err)
		}
	}
	return nil
}

func (p *peer) failing(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	_, err = say(ctx, c, "error")
	return isCode(err, tri.CodeFailedPrecondition, "100% no: \u00e9")
}

// retries checks how often the handler runs of a call that fails: the server counts. A call that
// fails with code 17 is not made again.
func (p *peer) retries(ctx context.Context) error {
	for _, x := range []struct {
		name  string
		opts  []client.ReferenceOption
		times int
	}{{"count by default", nil, 3}, {"count without", []client.ReferenceOption{client.WithRetries(0)}, 1}, {"count17", nil, 1}} {
		c, err := p.connect(greeter, x.opts...)
		if err != nil {
			return err
		}
		if _, err := say(ctx, c, x.name); err == nil {
			return errors.New("the call has not failed")
		}
		if err := p.wants(ctx, "how often "+x.name, fmt.Sprint(x.times)); err != nil {
			return err
		}
	}
	return nil
}

// failingStreams checks that errors end streams with their code, before and behind messages.
func (p *peer) failingStreams(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	raw, err := c.CallServerStream(ctx, wrapperspb.String("error"), "greetServerStream")
	if err != nil {
		return err
	}
	down := raw.(*tri.ServerStreamForClient)
	for down.Receive(&wrapperspb.StringValue{}) {
		return errors.New("there is a reply")
	}
	if err := isCode(down.Err(), tri.CodeFailedPrecondition, "100% no: \u00e9"); err != nil {
		return fmt.Errorf("a server stream: %w", err)
	}
	if raw, err = c.CallBidiStream(ctx, "greetStream"); err != nil {
		return err
	}
	both := raw.(*tri.BidiStreamForClient)
	for _, name := range []string{"Ada", "error"} {
		if err := both.Send(wrapperspb.String(name)); err != nil {
			return err
		}
	}
	if err := both.Receive(&wrapperspb.StringValue{}); err != nil {
		return fmt.Errorf("before the error: %w", err)
	}
	if err := isCode(both.Receive(&wrapperspb.StringValue{}), tri.CodeFailedPrecondition, "100% no: \u00e9"); err != nil {
		return fmt.Errorf("a bidi stream: %w", err)
	}
	return nil
}

func (p *peer) unknownMethod(ctx context.Context) error {
	c, err := p.connect(greeter)
	if err != nil {
		return err
	}
	err = c.CallUnary(ctx, []interface{}{wrapperspb.String("Ada")}, &wrapperspb.StringValue{}, "greetNobody")
	return isCode(err, tri.CodeUnimplemented, "")
}

// attachments checks that they come as metadata, with the keys that dubbo-go adds.
func (p *peer) attachments(ctx context.Context) error {
	ctx = context.WithValue(ctx, constant.AttachmentKey, map[string]interface{}{"x-echo": []string{"one", "two"}})
	return p.wants(ctx, "metadata", "one|two "+greeter)
}

// large checks messages of more than a frame and a window, which come back compressed.
func (p *peer) large(ctx context.Context) error {
	name := strings.Repeat("0123456789abcdef", 128<<10) // 2 MiB
	return p.wants(ctx, name, "hello "+name)
}

func (p *peer) deadline(ctx context.Context) error {
	c, err := p.connect(greeter, client.WithRetries(0))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = say(ctx, c, "sleep")
	if time.Since(begin) > 2*time.Second { // it is 3 s by default
		return errors.New("the deadline has passed unnoticed")
	}
	return isCode(err, tri.CodeDeadlineExceeded, "")
}
