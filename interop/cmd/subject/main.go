// Command subject is what the suites test: sluice's side of each.
//
//	subject serve                 # all services, on a free port, which it prints
//	subject grpctest HOST:PORT    # the cases of gRPC's interoperability suite, against a server
//	subject greeter HOST:PORT     # the checks of a greeter
//	subject serve-triple          # Dubbo's greeters, on a free port, which it prints
//	subject triple HOST:PORT      # the checks of a server of dubbo-go's
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
	"log/slog"
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
	"github.com/sluicerpc/sluice/interop/tripletest"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
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
		case "serve-triple":
			return serveTriple(ctx)
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
			return against(ctx, "grpc://"+args[1], grpctest.Cases())
		case "greeter":
			return against(ctx, "grpc://"+args[1], greeter.Cases())
		case "triple":
			return against(ctx, "tri://"+args[1], tripletest.DubboGoCases())
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

// serveTriple serves as Dubbo's programs do: it compresses what it sends.
func serveTriple(ctx context.Context) error {
	var hs kernel.Handlers
	if err := tripletest.Register(&hs); err != nil {
		return err
	}
	srv, err := tripletest.Config().Start(ctx, &hs, &kernel.ServerOptions{
		Stream: kernel.StreamOptions{Compression: pool.Gzip}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	fmt.Println(srv.Addrs()[0].(*net.TCPAddr).Port)
	return srv.Wait()
}

// against checks a server.
func against(ctx context.Context, target string, cases []check.Case) error {
	c, err := kernel.Dial(ctx, target, &kernel.ClientOptions{Protocols: []frame.Protocol{triple.Protocol{}}})
	if err != nil {
		return err
	}
	return errors.Join(check.Run(ctx, c, cases, os.Stdout), c.Close())
}
