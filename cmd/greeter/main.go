// Command greeter is the Greeter of Apache Dubbo's samples, on code that protoc-gen-go-sluice has
// generated from greeterpb/greeter.proto: a method of each of gRPC's four shapes, and a client that
// calls them. Programs of Dubbo and of gRPC can call the server, and be called by the client.
//
//	go run -C cmd/greeter . demo              # server and client
//	go run -C cmd/greeter . serve             # by application.yaml, or DUBBO_CONFIG_PATH
//	go run -C cmd/greeter . call              # tri://127.0.0.1:8888
//	go run -C cmd/greeter . call -addr sluice://127.0.0.1:8888
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/sluicerpc/sluice/cmd/greeter/greeterpb"
	"github.com/sluicerpc/sluice/contrib/dubbo"
	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
)

// defaults is the configuration where there is no other.
//
//go:embed application.yaml
var defaults []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: greeter demo | serve [-addr host:port] | call [-addr target]")

// run runs a command. A client prints to out. So does a server that is alone; in a demo it prints
// to beside.
func run(ctx context.Context, args []string, out, beside io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(beside)
	switch args[0] {
	case "demo":
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return demo(ctx, out, beside)
	case "serve":
		addr := flags.String("addr", "", "listen here instead of where the configuration says; port 0 is a free one")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		srv, err := serve(ctx, *addr, out)
		if err != nil {
			return err
		}
		return srv.Wait()
	case "call":
		addr := flags.String("addr", "tri://127.0.0.1:8888", "the server: host:port for Triple, or a target with tri://, grpc://, sluice:// or brpc:// before it")
		if err := parse(flags, args[1:]); err != nil {
			return err
		}
		return call(ctx, *addr, out)
	}
	return errUsage
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is too much: %w", flags.Args(), errUsage)
	}
	return nil
}

// demo runs a server and a client. At the end a second client goes away in the middle of a stream.
func demo(ctx context.Context, out, beside io.Writer) error {
	srv, err := serve(ctx, "127.0.0.1:0", beside)
	if err != nil {
		return err
	}
	target := "tri://" + srv.Addrs()[0].String()
	err = call(ctx, target, out)
	if err == nil {
		err = callAndVanish(ctx, target)
	}
	return errors.Join(err, srv.Shutdown(ctx), srv.Wait())
}

// protocols are the wires that the programs speak: Dubbo's form of gRPC, sluice's own, and brpc's.
func protocols() []frame.Protocol {
	return []frame.Protocol{triple.Protocol{Dubbo: true}, native.Protocol{}, strm.Protocol{}}
}

// A service is a server with its Greeter.
type service struct {
	*dubbo.Server
	g *greeter
}

// Wait waits until the server has ended, and its handlers.
func (s *service) Wait() error {
	err := s.Server.Wait()
	s.g.running.Wait()
	return err
}

// serve starts a server by the configuration, or at addr.
func serve(ctx context.Context, addr string, out io.Writer) (*service, error) {
	cfg, err := config(addr)
	if err != nil {
		return nil, err
	}
	var handlers kernel.Handlers
	g := &greeter{out: out}
	handlers.Use(g.counted)
	if err := greeterpb.HandleGreeter(&handlers, g, nil); err != nil {
		return nil, err
	}
	registerTools(&handlers)
	srv, err := cfg.Start(ctx, &handlers, &kernel.ServerOptions{Protocols: protocols()})
	if err != nil {
		return nil, err
	}
	return &service{srv, g}, nil
}

// config is that of DUBBO_CONFIG_PATH, of application.yaml, or the one in the program.
func config(addr string) (*dubbo.Config, error) {
	cfg, err := dubbo.Load()
	if errors.Is(err, os.ErrNotExist) && os.Getenv(dubbo.ConfigPathEnv) == "" {
		cfg, err = dubbo.Parse(defaults)
	}
	if err != nil || addr == "" {
		return cfg, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("-addr: %w", err)
	}
	cfg.Protocols = []dubbo.Protocol{{ID: "addr", IP: host, Port: int(n)}}
	return cfg, nil
}

// registerTools registers what programs such as grpcurl ask a server for: health, and reflection.
func registerTools(hs *kernel.Handlers) {
	r := sluicegrpc.NewRegistrar(hs, nil)
	grpc_health_v1.RegisterHealthServer(r, health.NewServer())
	all := reflection.ServerOptions{Services: services{r}}
	grpc_reflection_v1.RegisterServerReflectionServer(r, reflection.NewServerV1(all))
	grpc_reflection_v1alpha.RegisterServerReflectionServer(r, reflection.NewServer(all))
}

// services are those of a registrar, and Greeter, which was registered without it.
type services struct{ *sluicegrpc.Registrar }

// GetServiceInfo implements reflection.ServiceInfoProvider.
func (s services) GetServiceInfo() map[string]grpc.ServiceInfo {
	all := s.Registrar.GetServiceInfo()
	all[string(greeterpb.GreeterService().FullName())] = grpc.ServiceInfo{}
	return all
}

func call(ctx context.Context, target string, out io.Writer) error {
	c, err := dial(ctx, target)
	if err != nil {
		return err
	}
	return errors.Join(callAll(ctx, c, out), c.Close())
}

func callAndVanish(ctx context.Context, target string) error {
	c, err := dial(ctx, target)
	if err != nil {
		return err
	}
	return errors.Join(disconnect(ctx, c), c.Close())
}

func dial(ctx context.Context, target string) (*kernel.Client, error) {
	if !strings.Contains(target, "://") {
		target = "tri://" + target
	}
	return kernel.Dial(ctx, target, &kernel.ClientOptions{Protocols: protocols()})
}
