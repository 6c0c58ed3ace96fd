package load

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
	"github.com/sluicerpc/sluice/benchmarks/peer/sluicepeer"
)

// few serves with fewer streams a connection than a run wants.
func few(t *testing.T, p peer.Peer, streams int) Target {
	t.Helper()
	s, err := p.Serve("127.0.0.1:0", peer.Options{MaxMessage: 4 << 20, Streams: streams, Conns: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return Target{Peer: p, Addr: s.Addr()}
}

// The server allows fewer streams than are asked for, and the library waits
// until one ends.
func TestAnInterruptEndsOpening(t *testing.T) {
	for _, preset := range []string{"idle", "fan"} {
		c := short(t, preset, func(c *Config) { c.Conns, c.Streams = 1, 12 })
		p := sluicepeer.Peers()[0]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := Run(ctx, few(t, p, 10), c, func(p Progress) {
			if p.Phase == Opening {
				time.AfterFunc(50*time.Millisecond, cancel)
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", preset, err)
		}
	}
}

func TestAnInterruptEndsASlowOpenRate(t *testing.T) {
	c := short(t, "fan", func(c *Config) { c.OpenRate = 0.01 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Run(ctx, serve(t, raw.New(), c), c, func(p Progress) {
		if p.Phase == Opening {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOpeningHasALimit(t *testing.T) {
	c := short(t, "fan", func(c *Config) { c.Streams = 12 })
	r := newRun(t.Context(), few(t, sluicepeer.Peers()[0], 10), c, func(Progress) {})
	defer r.close()
	if err := r.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.openInTime(t.Context(), 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "of 12 streams") {
		t.Error(err)
	}
}
