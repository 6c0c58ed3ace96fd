// Package greeter is a service with gRPC's four kinds of methods on package rpc, and a client
// that checks one: the partner of the programs of grpc-js in the directory js.
package greeter

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/sluicerpc/sluice/interop/greeter/greeterpb"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	_ "github.com/sluicerpc/sluice/rpc/protocodec" // carries the messages
	"github.com/sluicerpc/sluice/status"
)

// service is how the methods' names begin.
const service = "sluice.interop.v1.Greeter/"

// The keys of metadata that a request can have, and what comes back of it in the header and in
// the trailer.
const (
	echoHeader  = "x-echo"
	echoTrailer = "x-echo-bin"
)

// The error that "error" asks for.
const (
	reason = "100% no: \u00e9"
	keyWhy = "x-why"
	why    = "asked for"
)

type server struct {
	cancelled atomic.Int64 // calls that were
}

// Register registers the service's methods.
func Register(r rpc.Registrar) error {
	s := &server{}
	return errors.Join(
		rpc.HandleUnary(r, service+"Greet", s.greet, nil),
		rpc.HandleClientStream(r, service+"GreetAll", s.greetAll, nil),
		rpc.HandleServerStream(r, service+"GreetOften", s.greetOften, nil),
		rpc.HandleBidi(r, service+"GreetEach", s.greetEach, nil),
	)
}

// count counts a call that ends with err if it was cancelled.
func (s *server) count(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		s.cancelled.Add(1)
	}
	return err
}

func (s *server) greet(ctx context.Context, h *greeterpb.Hello) (*greeterpb.Greeting, error) {
	switch h.Name {
	case "error":
		return nil, &status.HandlerError{Code: status.FailedPrecondition, Reason: reason, Details: metadata.MD{{Key: keyWhy, Value: why}}}
	case "sleep":
		<-ctx.Done()
		return nil, s.count(ctx, ctx.Err())
	case "cancelled":
		return &greeterpb.Greeting{Number: s.cancelled.Load()}, nil
	}
	return greeting(h, 0), echo(kernel.FromContext(ctx))
}

func (s *server) greetAll(ctx context.Context, in *rpc.Source[*greeterpb.Hello]) (*greeterpb.Greeting, error) {
	g := &greeterpb.Greeting{Text: "hello all"}
	for _, err := range in.All(ctx) {
		if err != nil {
			return nil, s.count(ctx, err)
		}
		g.Number++
	}
	return g, nil
}

func (s *server) greetOften(ctx context.Context, h *greeterpb.Hello, out *rpc.Sink[*greeterpb.Greeting]) error {
	for i := range h.Count {
		if err := out.Send(ctx, greeting(h, i)); err != nil {
			return s.count(ctx, err)
		}
	}
	return nil
}

func (s *server) greetEach(ctx context.Context, b *rpc.Bidi[*greeterpb.Hello, *greeterpb.Greeting]) error {
	if err := echo(b.Stream()); err != nil {
		return err
	}
	n := int64(0)
	for h, err := range b.In.All(ctx) {
		if err == nil {
			err = b.Out.Send(ctx, greeting(h, n))
		}
		if err == nil && h.Name == "sleep" {
			<-ctx.Done()
			err = ctx.Err()
		}
		if err != nil {
			return s.count(ctx, err)
		}
		n++
	}
	return nil
}

func greeting(h *greeterpb.Hello, n int64) *greeterpb.Greeting {
	return &greeterpb.Greeting{Text: "hello " + h.Name, Number: n}
}

// echo sends back the metadata that a client wants back.
func echo(s *kernel.Stream) error {
	if v, ok := s.Metadata().Lookup(echoHeader); ok {
		if err := s.SetHeader(metadata.MD{{Key: echoHeader, Value: v}}); err != nil {
			return err
		}
	}
	if v, ok := s.Metadata().Lookup(echoTrailer); ok {
		return s.SetTrailer(metadata.MD{{Key: echoTrailer, Value: v}})
	}
	return nil
}
