// Command subject is what the suites test: sluice's side of each.
//
//	subject serve                 # all services, on a free port, which it prints
//	subject grpctest HOST:PORT    # the cases of gRPC's interoperability suite, against a server
//	subject greeter HOST:PORT     # the checks of a greeter
//	subject conformance-server    # started by connectconformance
//	subject conformance-client
//	subject contrib-server        # the same on generated code, through contrib/grpc
//	subject contrib-client        # and over sluice's own wire
//	subject contrib-client-native
//
// It ends when it is interrupted, and with status 1 if anything went wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/interop/conformance"
	"github.com/sluicerpc/sluice/interop/greeter"
	"github.com/sluicerpc/sluice/interop/grpctest"
	"github.com/sluicerpc/sluice/kernel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "subject:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 {
		switch args[0] {
		case "serve":
			return serve(ctx)
		case "conformance-server":
			return conformance.Serve(ctx, os.Stdin, os.Stdout)
		case "conformance-client":
			return conformance.Call(ctx, os.Stdin, os.Stdout)
		case "contrib-server":
			return conformance.ServeContrib(ctx, os.Stdin, os.Stdout)
		case "contrib-client":
			return conformance.CallContrib(ctx, os.Stdin, os.Stdout, "grpc://")
		case "contrib-client-native":
			return conformance.CallContrib(ctx, os.Stdin, os.Stdout, "")
		}
	}
	if len(args) == 2 {
		switch args[0] {
		case "grpctest":
			return against(ctx, args[1], grpctest.Cases())
		case "greeter":
			return against(ctx, args[1], greeter.Cases())
		}
	}
	return errors.New("see the package's documentation for what can be asked")
}

func serve(ctx context.Context) error {
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: []frame.Protocol{triple.Protocol{}}})
	if err != nil {
		return err
	}
	if err := errors.Join(grpctest.Register(srv), greeter.Register(srv)); err != nil {
		return err
	}
	ln, err := kernel.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	if err := srv.Serve(ctx, ln); !errors.Is(err, kernel.ErrServerClosed) {
		return err
	}
	return nil
}

// against checks a server.
func against(ctx context.Context, addr string, cases []check.Case) error {
	c, err := kernel.Dial(ctx, "grpc://"+addr, &kernel.ClientOptions{Protocols: []frame.Protocol{triple.Protocol{}}})
	if err != nil {
		return err
	}
	return errors.Join(check.Run(ctx, c, cases, os.Stdout), c.Close())
}
