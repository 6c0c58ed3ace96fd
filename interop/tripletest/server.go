// Package tripletest is the greeter of Dubbo's samples on contrib/dubbo and package rpc, and a client
// that checks one: the partner of dubbo-go in the directory dubbo, and of what stands for
// dubbo-rust in the tests.
package tripletest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	_ "github.com/sluicerpc/sluice/rpc/protocodec" // carries the messages
	"github.com/sluicerpc/sluice/status"
)

// The greeter, and one that is registered with a version and a group.
const (
	greeter   = "org.apache.dubbo.sample.tri.Greeter"
	versioned = "org.apache.dubbo.sample.tri.VersionedGreeter"
	version   = "1.0.0"
	group     = "test"
)

// reason is that of the error that the name "error" asks for.
const reason = "100% no: \u00e9"

// plain is the status that dubbo-go makes of an error without a code: gRPC has it not.
const plain status.Code = 17

// many is how many replies a long stream has.
const many = 1000

// text stands for a GreeterRequest{name = 1} and a GreeterReply{message = 1}: on the wire they are
// the same.
type text = *wrapperspb.StringValue

// Config is that of a server on a free port of this machine.
func Config() *dubbo.Config {
	return &dubbo.Config{
		Protocols: []dubbo.Protocol{{ID: "triple", IP: "127.0.0.1"}},
		Services: []dubbo.Service{
			{ID: "Greeter", Interface: greeter},
			{ID: "VersionedGreeter", Interface: versioned, Version: version, Group: group},
		},
	}
}

type server struct {
	mu     sync.Mutex
	counts map[string]int // calls of names that are counted
}

// Register registers both greeters.
func Register(r rpc.Registrar) error {
	s := &server{counts: map[string]int{}}
	return errors.Join(s.register(r, greeter), s.register(r, versioned))
}

func (s *server) register(r rpc.Registrar, service string) error {
	return errors.Join(
		rpc.HandleUnary(r, service+"/greet", s.greet, nil),
		rpc.HandleClientStream(r, service+"/greetClientStream", s.greetClientStream, nil),
		rpc.HandleServerStream(r, service+"/greetServerStream", s.greetServerStream, nil),
		rpc.HandleBidi(r, service+"/greetStream", s.greetStream, nil),
	)
}

// greet answers some names with what they ask for.
func (s *server) greet(ctx context.Context, name text) (text, error) {
	switch verb, _, _ := strings.Cut(name.Value, " "); verb {
	case "error":
		return nil, &status.HandlerError{Code: status.FailedPrecondition, Reason: reason}
	case "sleep":
		<-ctx.Done()
		return nil, ctx.Err()
	case "metadata":
		md := kernel.FromContext(ctx).Metadata()
		return wrapperspb.String(strings.TrimSpace(strings.Join(md.Values("x-echo"), "|") + " " + md.Get("interface"))), nil
	case "count", "count17":
		s.mu.Lock()
		s.counts[name.Value]++
		s.mu.Unlock()
		code := status.FailedPrecondition
		if verb == "count17" {
			code = plain
		}
		return nil, &status.HandlerError{Code: code, Reason: "counted"}
	case "how":
		s.mu.Lock()
		defer s.mu.Unlock()
		return wrapperspb.String(fmt.Sprint(s.counts[strings.TrimPrefix(name.Value, "how often ")])), nil
	}
	return wrapperspb.String("hello " + name.Value), nil
}

func (s *server) greetClientStream(ctx context.Context, in *rpc.Source[text]) (text, error) {
	n := 0
	for _, err := range in.All(ctx) {
		if err != nil {
			return nil, err
		}
		n++
	}
	return wrapperspb.String(fmt.Sprintf("hello all %d", n)), nil
}

func (s *server) greetServerStream(ctx context.Context, name text, out *rpc.Sink[text]) error {
	for range many {
		reply, err := s.greet(ctx, name)
		if err != nil {
			return err
		}
		if err := out.Send(ctx, reply); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) greetStream(ctx context.Context, b *rpc.Bidi[text, text]) error {
	for name, err := range b.In.All(ctx) {
		if err != nil {
			return err
		}
		reply, err := s.greet(ctx, name)
		if err != nil {
			return err
		}
		if err := b.Out.Send(ctx, reply); err != nil {
			return err
		}
	}
	return nil
}
