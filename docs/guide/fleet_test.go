package guide_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

func dialFleet(ctx context.Context) (*fleet.Client, error) {
	return fleet.Dial(ctx, "dns://shop.internal:7000", &fleet.Options{
		Balancer: fleet.LeastStreams,
		Client:   kernel.ClientOptions{Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}}},
	})
}

func dialByUser(ctx context.Context, target string) (*fleet.Client, error) {
	return fleet.Dial(ctx, target, &fleet.Options{
		Balancer: fleet.Ketama,
		Key:      func(_ context.Context, _ string, md metadata.MD) string { return md.Get("user") },
	})
}

// watchRegistry is a fleet.Resolver: it asks a registry once in a while, and at once when a connection has
// failed.
func watchRegistry(list func(ctx context.Context, name string) ([]string, error)) fleet.Resolver {
	return func(ctx context.Context, name string, again <-chan struct{}) <-chan fleet.Set {
		sets := make(chan fleet.Set)
		go func() {
			defer close(sets)
			for {
				addrs, err := list(ctx, name)
				set := fleet.Set{Err: err} // without endpoints the last good set stays
				for _, addr := range addrs {
					set.Endpoints = append(set.Endpoints, fleet.Endpoint{Addr: addr})
				}
				select {
				case sets <- set:
				case <-ctx.Done():
					return
				}
				select {
				case <-time.After(10 * time.Second):
				case <-again:
				case <-ctx.Done():
					return
				}
			}
		}()
		return sets
	}
}

// The options of the page can be.
func TestDialsOfFleetsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, dial := range []func() (*fleet.Client, error){
		func() (*fleet.Client, error) { return dialFleet(ctx) },
		func() (*fleet.Client, error) { return dialByUser(ctx, "list://127.0.0.1:1") },
	} {
		if _, err := dial(); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

func TestWatchRegistryAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		again := make(chan struct{}, 1)
		down := errors.New("registry down")
		sets := watchRegistry(func(_ context.Context, name string) ([]string, error) {
			if asked++; asked == 2 {
				return nil, down
			}
			return []string{name + ":1"}, nil
		})(ctx, "a", again)
		start := time.Now()
		first := <-sets
		again <- struct{}{}
		second := <-sets
		third := <-sets
		if len(first.Endpoints) != 1 || first.Endpoints[0].Addr != "a:1" || second.Err != down || third.Err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("%+v, %+v, %+v after %v", first, second, third, time.Since(start))
		}
		cancel()
		for range sets {
		}
	})
}
