package main

import (
	"context"
	"fmt"
	"os"
)

// dubboGoClientCases are the checks of dubbo/client.go.
var dubboGoClientCases = []string{
	"unary", "client stream", "server stream", "bidi stream", "version and group", "error", "retries",
	"streams that fail", "unknown method", "attachments", "large messages", "deadline",
}

// dubboGoClient has a client of dubbo-go check our server.
func dubboGoClient(ctx context.Context, b *bench) (string, error) {
	return b.beside(ctx, "serve-triple", func(port string) (string, error) {
		out, err := b.output(ctx, b.dir, b.path(dubboGo), "greet", "127.0.0.1:"+port)
		return results(out, err, dubboGoClientCases)
	})
}

// tripleCases are the checks of our own client.
var tripleCases = []string{
	"unary", "client stream", "server stream", "bidi stream", "version and group", "error",
	"streams that fail", "unknown method", "metadata", "large messages", "compressed requests", "deadline",
	"cancel", "plain error",
}

// requireNetns is the environment variable that makes a failure of what needs a network namespace.
const requireNetns = "SLUICE_REQUIRE_NETNS"

// dubboGoServer has our client check a server of dubbo-go, both in a network namespace: it opens a
// port for its metadata on all addresses.
func dubboGoServer(ctx context.Context, b *bench) (string, error) {
	if _, err := b.output(ctx, b.dir, "unshare", "--net", "true"); err != nil {
		if os.Getenv(requireNetns) != "" {
			return "", fmt.Errorf("a network namespace: %w", err)
		}
		return "left out: this user may make no network namespace", nil
	}
	out, err := b.output(ctx, b.dir, "unshare", "--net", b.path(dubboGo), "beside", b.path(subject), "triple", "127.0.0.1:20000")
	return results(out, err, tripleCases)
}
