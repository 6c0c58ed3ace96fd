package fleet

import (
	"context"
	"strings"
	"time"
)

// A Resolver watches a registry. It gives a channel of all endpoints that there are: at first,
// and whenever that has changed. name is what follows "scheme://" in the fleet's target. again
// gives a value when a connection to an endpoint has failed: a Resolver that does not hear of
// changes by itself can look again then. It may be left alone.
//
// The channel is the Resolver's, which sends on it until ctx ends. If it closes the channel
// before, or panics, or returns nil, that is a failure of the registry: the fleet goes on with
// what it has, and calls the Resolver again after a pause, as Backoff of the client's options
// says. A Resolver is called in a goroutine of its own and may take its time.
type Resolver func(ctx context.Context, name string, again <-chan struct{}) <-chan Set

// resolvers are those that every fleet has, by scheme.
func resolvers() map[string]Resolver {
	return map[string]Resolver{
		"list": list,
		"file": File(0),
		"dns":  DNS(0, nil),
	}
}

// list is the resolver of "list://a:1,b:2": the endpoints stand in the name. Each can have a
// tag, as in a file.
func list(_ context.Context, name string, _ <-chan struct{}) <-chan Set {
	sets := make(chan Set, 1)
	sets <- parse(strings.Split(name, ","))
	return sets
}

// send sends a set unless ctx ends before.
func send(ctx context.Context, sets chan<- Set, s Set) {
	select {
	case sets <- s:
	case <-ctx.Done():
	}
}

// sleep waits for d, or until ctx ends: then it reports false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
