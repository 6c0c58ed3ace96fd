// Command dubbo is Apache's dubbo-go, as a client and as a server of a greeter, for the suites. It
// is a module of its own because of all that dubbo-go requires.
//
//	dubbo greet HOST:PORT            # the checks of a server
//	dubbo beside PROGRAM ARG...      # serves at 127.0.0.1:20000 while the program runs
//
// A server of dubbo-go's has another port, for its own metadata, on every address of the machine.
// So the second form belongs into a network namespace of its own; it brings up the loopback
// interface there. On the wire a GreeterRequest{name = 1} and a GreeterReply{message = 1} are
// StringValues.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	_ "dubbo.apache.org/dubbo-go/v3/cluster/cluster/failover"
	_ "dubbo.apache.org/dubbo-go/v3/cluster/loadbalance/random"
	_ "dubbo.apache.org/dubbo-go/v3/filter/accesslog"
	_ "dubbo.apache.org/dubbo-go/v3/filter/echo"
	_ "dubbo.apache.org/dubbo-go/v3/filter/exec_limit"
	_ "dubbo.apache.org/dubbo-go/v3/filter/generic"
	_ "dubbo.apache.org/dubbo-go/v3/filter/graceful_shutdown"
	_ "dubbo.apache.org/dubbo-go/v3/filter/token"
	_ "dubbo.apache.org/dubbo-go/v3/filter/tps"
	_ "dubbo.apache.org/dubbo-go/v3/protocol/triple"
	_ "dubbo.apache.org/dubbo-go/v3/proxy/proxy_factory"
	_ "dubbo.apache.org/dubbo-go/v3/registry/protocol"
)

// The greeter, and one that is registered with a version and a group.
const (
	greeter   = "org.apache.dubbo.sample.tri.Greeter"
	versioned = "org.apache.dubbo.sample.tri.VersionedGreeter"
	version   = "1.0.0"
	group     = "test"
)

// many is how many messages a long stream has, each way.
const many = 1000

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dubbo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "greet":
		return greet(ctx, args[1])
	case len(args) >= 2 && args[0] == "beside":
		return beside(ctx, args[1], args[2:]...)
	}
	return errors.New("see the package's documentation for what can be asked")
}
