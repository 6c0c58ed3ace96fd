package status_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The server and the client of an example are in memory.
var (
	newServer = testkit.ExampleServer
	start     = testkit.StartExample
)

func say(s string) pool.Message { return pool.MessageOf([]byte(s)) }

// upper is a handler that answers each message in capitals.
func upper(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		for i, c := range m.Bytes() {
			if 'a' <= c && c <= 'z' {
				m.Bytes()[i] = c - 'a' + 'A'
			}
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// advice says what a caller can do about a code.
func advice(c status.Code) string {
	switch c {
	case status.OK:
		return "nothing failed"
	case status.InvalidArgument, status.NotFound, status.AlreadyExists, status.FailedPrecondition,
		status.OutOfRange, status.PermissionDenied, status.Unauthenticated, status.TooLarge:
		return "the request is at fault: do not repeat it"
	case status.Unimplemented, status.Version:
		return "the peer has no such method or protocol version"
	case status.Cancelled, status.DeadlineExceeded, status.IdleTimeout:
		return "time or patience is over: repeat what may run twice"
	case status.Unavailable, status.ResourceExhausted, status.Aborted,
		status.Refused, status.GoingAway, status.HandshakeTimeout:
		return "the peer can't serve it now: repeat it after a pause"
	case status.Keepalive, status.WriteStall, status.ConnectionLost:
		return "the connection is gone: the next Open makes another one"
	case status.Protocol, status.FlowControl, status.FrameSize, status.StreamState,
		status.Checksum, status.EnhanceYourCalm:
		return "a program broke the protocol's rules: report it"
	case status.Unknown, status.Internal, status.DataLoss:
		return "the peer's program failed: see its log"
	}
	if c >= status.FirstAppCode {
		return "the application's own"
	}
	return "not known to this version"
}

// Numbers 0 to 16 are gRPC's codes, 64 to 255 are the kernel's, and those from FirstAppCode on
// the application's. NameCode names one of these for texts.
func ExampleCode() {
	const outOfStock = status.FirstAppCode + 44
	status.NameCode(outOfStock, "OUT_OF_STOCK")
	for _, c := range []status.Code{status.NotFound, status.Refused, status.ConnectionLost, outOfStock, 200} {
		fmt.Printf("%d %v: %s\n", uint32(c), c, advice(c))
	}
	// Output:
	// 5 NOT_FOUND: the request is at fault: do not repeat it
	// 74 REFUSED: the peer can't serve it now: repeat it after a pause
	// 78 CONNECTION_LOST: the connection is gone: the next Open makes another one
	// 300 OUT_OF_STOCK: the application's own
	// 200 CODE_200: not known to this version
}

// A handler chooses the code, the reason and further details of its failure.
func ExampleHandlerError() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("order", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{
			Code:    status.FailedPrecondition,
			Reason:  "the basket is empty",
			Details: metadata.MD{{Key: "basket", Value: "17"}},
		}
	})
	client, stop := start(srv, nil)
	defer stop()

	_, err := client.Call(ctx, "order", pool.Message{}, nil)
	var failed *status.StreamError
	if errors.As(err, &failed) {
		fmt.Println(failed)
		fmt.Println(failed.Code, "-", failed.Reason, "- basket", failed.Details.Get("basket"))
		fmt.Println("the peer decided it:", failed.Remote, "- safe to try again:", failed.NotProcessed)
	}
	// Output:
	// sluice: stream 1 (order): refused: FAILED_PRECONDITION: the basket is empty
	// FAILED_PRECONDITION - the basket is empty - basket 17
	// the peer decided it: true - safe to try again: false
}

// Whether it is safe to try again: nobody has looked at the request.
func ExampleStreamError() {
	ctx := context.Background()
	client, stop := start(newServer(), nil)
	defer stop()

	_, err := client.Call(ctx, "nothing of that name", pool.Message{}, nil)
	var failed *status.StreamError
	if errors.As(err, &failed) && errors.Is(err, status.ErrRefused) {
		fmt.Println(failed.Code, "- safe to try again:", failed.NotProcessed)
	}
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.Unimplemented}))
	// Output:
	// UNIMPLEMENTED - safe to try again: true
	// true
}

// A handler learns that its client is gone. It may have ended the stream instead: then the error
// says so.
func ExampleStreamError_Is() {
	ctx := context.Background()
	srv := newServer()
	begun, ended := make(chan bool), make(chan error, 1)
	srv.Handle("upload", func(ctx context.Context, s *kernel.Stream) error {
		close(begun)
		_, err := s.Receive(ctx)
		ended <- err
		return err
	})
	client, stop := start(srv, nil)
	defer stop()

	if _, err := client.Open(ctx, "upload", nil); err != nil {
		fmt.Println(err)
		return
	}
	<-begun
	if err := client.Close(); err != nil {
		fmt.Println(err)
		return
	}
	err := <-ended
	fmt.Println(errors.Is(err, status.ErrDisconnected), errors.Is(err, syscall.EPIPE), errors.Is(err, context.Canceled))
	// Output:
	// true true false
}

// Of is the status that a stream ends with when its handler returns an error.
func ExampleOf() {
	for _, err := range []error{
		nil,
		&status.HandlerError{Code: status.NotFound, Reason: "no such user"},
		fmt.Errorf("lookup: %w", &status.StreamError{Code: status.Unavailable, Reason: "restarting"}),
		errors.New("disk full"),
	} {
		code, reason := status.Of(err)
		fmt.Printf("%v %q\n", code, reason)
	}
	// Output:
	// OK ""
	// NOT_FOUND "no such user"
	// UNAVAILABLE "restarting"
	// UNKNOWN "disk full"
}

// A ConnError says what the connection was doing, and for what reason it ended or was not
// made.
func ExampleConnError() {
	ctx := context.Background()
	refused := errors.New("nobody listens")
	_, err := kernel.Dial(ctx, "10.0.0.1:7000", &kernel.ClientOptions{
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, refused },
	})
	var failed *status.ConnError
	if errors.As(err, &failed) {
		fmt.Println(failed.Op, failed.Addr, failed.Remote)
	}
	fmt.Println(errors.Is(err, refused))
	fmt.Println(err)
	// Output:
	// dial 10.0.0.1:7000 false
	// true
	// sluice: dial 10.0.0.1:7000: nobody listens
}

// A noisy connection changes a bit of what it reads while it is told to.
type noisy struct {
	net.Conn
	on *atomic.Bool
}

func (c noisy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.on.Load() {
		p[n-1] ^= 1
	}
	return n, err
}

// A ProtocolError is found in a ConnError where the peer has broken a rule of the wire. Here
// a bit was changed on the way, which the checksum of the frame shows.
func ExampleProtocolError() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	ln := kerneltest.Listen()
	go func() { _ = srv.Serve(ctx, ln) }()
	defer srv.Close()
	var noise atomic.Bool
	client, err := kernel.Dial(ctx, kerneltest.Target, &kernel.ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := ln.Dial(ctx, network, addr)
			return noisy{c, &noise}, err
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	s, err := client.Open(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, _, err := s.Accepted(ctx); err != nil {
		fmt.Println(err)
		return
	}
	noise.Store(true)
	_ = s.Send(ctx, say("hello"))
	_, err = s.Receive(ctx)
	var broken *status.ProtocolError
	fmt.Println(errors.As(err, &broken), broken.Code)
	fmt.Println(errors.Is(err, &status.ConnError{Code: status.Checksum}))
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.ConnectionLost}))
	// Output:
	// true CHECKSUM
	// true
	// true
}
