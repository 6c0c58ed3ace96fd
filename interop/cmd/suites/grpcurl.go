package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// grpcurlGreeter has grpcurl, which knows no .proto file, list and call what cmd/greeter serves.
func grpcurlGreeter(ctx context.Context, b *bench) (found string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	p := &process{cmd: b.command(ctx, b.dir, b.path(greeterProgram), "serve", "-addr", addr), name: "greeter"}
	p.cmd.Stderr = &p.errs
	if err := p.cmd.Start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.kill()) }()
	if err := dialable(ctx, addr); err != nil {
		return "", err
	}
	const service = "org.apache.dubbo.sample.tri.Greeter"
	const three = `{"name":"Ada"} {"name":"Grace"} {"name":"Edsger"}`
	cases := []struct {
		args []string
		want []string
	}{
		{[]string{addr, "list"}, []string{service, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}},
		{[]string{addr, "describe", service}, []string{"rpc greetStream ( stream ."}},
		{[]string{"-d", `{"name":"Ada"}`, addr, service + "/greet"}, []string{"hello, dubbo-rust"}},
		{[]string{"-d", three, addr, service + "/greetClientStream"}, []string{"hello client streaming"}},
		{[]string{"-d", `{"name":"Ada"}`, addr, service + "/greetServerStream"}, []string{"msg1 from server", "msg2 from server", "msg3 from server"}},
		{[]string{"-d", three, addr, service + "/greetStream"}, []string{`server reply: \"Ada\"`, `server reply: \"Grace\"`, `server reply: \"Edsger\"`}},
		{[]string{addr, "grpc.health.v1.Health/Check"}, []string{"SERVING"}},
	}
	var errs []error
	for _, c := range cases {
		out, err := b.output(ctx, b.dir, b.path(grpcurl), append([]string{"-plaintext"}, c.args...)...)
		for _, want := range c.want {
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("grpcurl %q has not printed %q, but\n%s", c.args, want, out)
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return tally(len(cases), len(errs)), errors.Join(errs...)
}

// greeterProgram is cmd/greeter, in a module of its own.
const greeterProgram tool = "github.com/sluicerpc/sluice/cmd/greeter"

// moduleOf is the directory of the module that a tool is built in.
func (b *bench) moduleOf(t tool) string {
	switch t {
	case dubboGo:
		return filepath.Join(b.module, "dubbo")
	case greeterProgram:
		return filepath.Join(b.module, "..", "cmd", "greeter")
	}
	return b.module
}
