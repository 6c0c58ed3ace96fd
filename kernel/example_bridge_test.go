package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A stream of a gRPC client's is carried to a brpc server, and back. gRPC ends one direction
// before the other and brpc does not, so an empty message says to the brpc server that the client
// has sent everything.
func Example_bridge() {
	ctx, cancel := context.WithCancel(context.Background())
	brpc := serveOver(ctx, strm.Protocol{}, shout)
	back, err := kernel.Dial(ctx, "brpc://"+brpc.addr, &kernel.ClientOptions{Protocols: []frame.Protocol{strm.Protocol{}}})
	if err != nil {
		panic(err)
	}
	grpc := serveOver(ctx, triple.Protocol{}, bridge(back))
	client, err := kernel.Dial(ctx, "grpc://"+grpc.addr, &kernel.ClientOptions{Protocols: []frame.Protocol{triple.Protocol{}}})
	if err != nil {
		panic(err)
	}

	s, err := client.Open(ctx, "chat.Chat/Talk", nil)
	if err != nil {
		panic(err)
	}
	for _, word := range []string{"hello", "bridge"} {
		if err := s.Send(ctx, pool.Copy([]byte(word))); err != nil {
			panic(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		panic(err)
	}
	for m, err := range s.All(ctx) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s\n", m.Bytes())
		m.Release()
	}
	err = errors.Join(client.Close(), back.Close())
	cancel() // ends both servers
	fmt.Println(err, <-grpc.done, <-brpc.done)
	// Output:
	// hello!
	// bridge!
	// <nil> sluice: server closed sluice: server closed
}

// bridge serves each stream by one of to's.
func bridge(to kernel.Caller) kernel.Handler {
	return func(ctx context.Context, front *kernel.Stream) error {
		ctx, cancel := context.WithCancel(ctx)
		back, err := to.Open(ctx, front.Method(), nil) // it ends with ctx
		if err != nil {
			cancel()
			return err
		}
		there := make(chan error, 1)
		go func() {
			err := carry(ctx, front, back)
			if err == nil {
				err = back.Send(ctx, pool.Message{}) // everything was sent
			}
			if err != nil {
				cancel() // an error of the client's is the server's too
			}
			there <- err
		}()
		err = carry(ctx, back, front)
		cancel()
		<-there
		return err
	}
}

// carry sends on what it receives, up to the end.
func carry(ctx context.Context, from, to *kernel.Stream) error {
	for {
		m, err := from.Receive(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := to.Send(ctx, m); err != nil {
			m.Release()
			return err
		}
	}
}

// shout answers each message up to an empty one.
func shout(ctx context.Context, s *kernel.Stream) error {
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		answer := fmt.Appendf(nil, "%s!", m.Bytes())
		if m.Release(); len(answer) == 1 {
			return nil
		}
		if err := s.Send(ctx, pool.Copy(answer)); err != nil {
			return err
		}
	}
}

// A bridged server is one of the two.
type bridgedServer struct {
	addr string
	done <-chan error
}

// serveOver serves h over p until ctx ends.
func serveOver(ctx context.Context, p frame.Protocol, h kernel.Handler) bridgedServer {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: []frame.Protocol{p}})
	if err != nil {
		panic(err)
	}
	srv.Handle("chat.Chat/Talk", h)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	return bridgedServer{ln.Addr().String(), done}
}
