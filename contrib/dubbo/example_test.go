package dubbo_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A program of a server: DUBBO_CONFIG_PATH says where its YAML is.
func ExampleStart() {
	var handlers kernel.Handlers
	if err := registerGreeter(&handlers); err != nil {
		log.Fatal(err)
	}
	// The first signal begins the drain.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv, err := dubbo.Start(ctx, &handlers)
	if err != nil {
		log.Print(err) // here: there is no such file
		return
	}
	log.Fatal(srv.Wait())
}

// A server and a client, configured by one text.
func ExampleConfig_Start() {
	cfg, err := dubbo.Parse([]byte(`
dubbo:
  protocols:
    triple: {ip: 127.0.0.1, port: 0, name: tri}
  provider:
    services:
      GreeterProvider: {interface: org.apache.dubbo.sample.tri.Greeter, version: 1.0.0}
  consumer:
    references:
      GreeterClient: {interface: org.apache.dubbo.sample.tri.Greeter, version: 1.0.0}
`))
	if err != nil {
		log.Fatal(err)
	}
	var handlers kernel.Handlers
	if err := registerGreeter(&handlers); err != nil {
		log.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	srv, err := cfg.Start(context.Background(), &handlers, &kernel.ServerOptions{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(srv.URLs()), len(srv.Servers()))

	client, err := kernel.Dial(context.Background(), "triple://"+srv.Addrs()[0].String(), &kernel.ClientOptions{
		Protocols: []frame.Protocol{triple.Protocol{}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ref, _ := cfg.Reference("GreeterClient")
	for _, c := range []kernel.Caller{ref.Caller(client), client} { // the second names no version
		reply, err := rpc.Call[*wrapperspb.StringValue](context.Background(), c, ref.Interface+"/greet", wrapperspb.String("Ada"), nil)
		fmt.Printf("%q %t\n", reply.GetValue(), errors.Is(err, &status.StreamError{Code: status.Unimplemented}))
	}

	if err := client.Close(); err != nil {
		log.Fatal(err)
	}
	if err := srv.Shutdown(context.Background()); err != nil { // or srv.Close, at once
		log.Fatal(err)
	}
	fmt.Println(srv.Wait())
	// Output:
	// 1 1
	// "hello Ada" false
	// "" true
	// <nil>
}

// What has no effect is a warning, which Start logs, and what can't be is an error. Both say where.
func ExampleParse() {
	cfg, err := dubbo.Parse([]byte("dubbo:\n  registries:\n    zk: {protocol: zookeeper}\n"))
	fmt.Println(cfg.Warnings[0], err)

	_, err = dubbo.Parse([]byte("dubbo:\n  protocols:\n    triple: {port: http}\n"))
	var mistake *dubbo.ConfigError
	if errors.As(err, &mistake) {
		fmt.Println(mistake.Line, mistake.Path, mistake.Reason)
	}
	// Output:
	// dubbo.registries (line 2): no effect: there is no discovery, servers are not registered and clients dial addresses <nil>
	// 3 dubbo.protocols.triple.port "http" is no port
}

// The environment says where the YAML is.
func ExampleLoad() {
	_ = os.Setenv(dubbo.ConfigPathEnv, filepath.Join("testdata", "application.yaml"))
	defer os.Unsetenv(dubbo.ConfigPathEnv)
	cfg, err := dubbo.Load()
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range cfg.Protocols {
		fmt.Println(p.ID, p.IP, p.Port)
	}
	for _, s := range cfg.Services {
		fmt.Println(s.Interface, s.Version, s.Group)
	}
	// Output:
	// triple 0.0.0.0 8888
	// org.apache.dubbo.sample.tri.Greeter 1.0.0 test
}

// The level of the YAML is for the program's own logger.
func ExampleLoadFile() {
	cfg, err := dubbo.LoadFile(filepath.Join("testdata", "application.yaml"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.LogLevel)
	defer slog.SetLogLoggerLevel(slog.SetLogLoggerLevel(cfg.LogLevel))
	// Output:
	// DEBUG
}

// A server that is not configured by YAML checks versions and groups too.
func ExampleCheck() {
	check := dubbo.Check(dubbo.Service{Interface: "shop.Orders", Version: "2.0.0"})
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{triple.Protocol{}},
		Authorize: check,
	})
	if err != nil {
		log.Fatal(err)
	}
	srv.Handle("shop.Orders/Get", func(context.Context, *kernel.Stream) error { return nil })

	// What the server asks when a call comes:
	for _, version := range []string{"1.0.0", "2.0.0"} {
		err := check(context.Background(), nil, "shop.Orders/Get", metadata.MD{{Key: dubbo.KeyVersion, Value: version}})
		fmt.Println(version, err)
	}
	// Output:
	// 1.0.0 sluice: UNIMPLEMENTED: dubbo: shop.Orders is not served here in the version and group of the call
	// 2.0.0 <nil>
}
