package kernel_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
)

// callOnce has a client dial a server and make one call.
func callOnce(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions) error {
	t.Helper()
	srv, ln := serverOnly(t, so)
	srv.Handle("echo", echo)
	o := quietClient(co)
	o.Dial = ln.Dial
	c, err := kernel.Dial(t.Context(), kerneltest.Target, o)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	reply, err := c.Call(t.Context(), "echo", text("x"), nil)
	reply.Release()
	return err
}

// A duration that is Unlimited leaves a client and a server that work.
func TestUnlimitedDurationsAreLong(t *testing.T) {
	authenticate := func(context.Context, kernel.Peer) (kernel.Identity, error) { return "known", nil }
	authorize := func(context.Context, kernel.Identity, string, metadata.MD) error { return nil }
	all := kernel.Limits{
		Handshake: kernel.Unlimited, Authenticate: kernel.Unlimited, KeepaliveInterval: kernel.Unlimited,
		KeepaliveTimeout: kernel.Unlimited, ReadStall: kernel.Unlimited,
		WriteStall: kernel.Unlimited, IdleConn: kernel.Unlimited, Drain: kernel.Unlimited,
		MaxConnAge: kernel.Unlimited, ConnAgeGrace: kernel.Unlimited,
	}
	for name, l := range map[string]kernel.Limits{
		"Handshake":    {Handshake: kernel.Unlimited},
		"Authenticate": {Authenticate: kernel.Unlimited},
		"all":          all,
	} {
		for _, kind := range []kernel.ConnType{kernel.ConnSingle, kernel.ConnShort} {
			synctest.Test(t, func(t *testing.T) {
				if err := callOnce(t, nil, &kernel.ClientOptions{ConnType: kind, Limits: l}); err != nil {
					t.Errorf("a client's %s: %v", name, err)
				}
			})
		}
		synctest.Test(t, func(t *testing.T) {
			so := &kernel.ServerOptions{Limits: l, Authenticate: authenticate, Authorize: authorize}
			if err := callOnce(t, so, nil); err != nil {
				t.Errorf("a server's %s: %v", name, err)
			}
		})
	}
}

// A duration that is Unlimited does not keep an idle connection from being closed.
func TestUnlimitedDurationsLeaveIdleConnAlone(t *testing.T) {
	for name, l := range map[string]kernel.Limits{
		"KeepaliveInterval": {KeepaliveInterval: kernel.Unlimited},
		"KeepaliveTimeout":  {KeepaliveTimeout: kernel.Unlimited},
		"ReadStall":         {ReadStall: kernel.Unlimited},
		"WriteStall":        {WriteStall: kernel.Unlimited},
	} {
		inBubble(t, &kernel.ServerOptions{Limits: l}, nil, func(t *testing.T, w *world) {
			w.Quiesce()
			if n := w.Srv.Stats().Conns; n != 1 {
				t.Fatalf("%s: %d connections", name, n)
			}
			time.Sleep(11 * time.Minute)
			if n := w.Srv.Stats().Conns; n != 0 {
				t.Errorf("%s: %d connections after eleven minutes without streams", name, n)
			}
		})
	}
}

// A mutable connection loses what is written to it while silent is set.
type mutable struct {
	net.Conn
	silent *atomic.Bool
}

func (c *mutable) Write(p []byte) (int, error) {
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A duration that is Unlimited does not keep a peer that has vanished from being
// noticed.
func TestUnlimitedDurationsLeaveKeepaliveAlone(t *testing.T) {
	for name, l := range map[string]kernel.Limits{
		"IdleConn":   {IdleConn: kernel.Unlimited},
		"ReadStall":  {ReadStall: kernel.Unlimited},
		"WriteStall": {WriteStall: kernel.Unlimited},
	} {
		synctest.Test(t, func(t *testing.T) {
			srv, ln := serverOnly(t, &kernel.ServerOptions{Limits: l})
			var silent atomic.Bool
			c, err := kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{
				Limits: kernel.Limits{KeepaliveInterval: time.Hour},
				Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
					nc, err := ln.Dial(ctx, n, a)
					return &mutable{nc, &silent}, err
				},
			}))
			ok(t, err)
			time.Sleep(10 * time.Second)
			silent.Store(true)
			time.Sleep(2 * time.Minute)
			if n := srv.Stats().Conns; n != 0 {
				t.Errorf("%s: %d connections two minutes after the peer has vanished", name, n)
			}
			_ = c.Close()
		})
	}
}

// A duration below zero is a mistake, and said to be one.
func TestNegativeDurationsAreRefused(t *testing.T) {
	for name, l := range map[string]kernel.Limits{
		"Handshake": {Handshake: -time.Second}, "Authenticate": {Authenticate: -1},
		"KeepaliveInterval": {KeepaliveInterval: -1}, "KeepaliveTimeout": {KeepaliveTimeout: -1},
		"ReadStall":  {ReadStall: -1},
		"WriteStall": {WriteStall: -1}, "IdleConn": {IdleConn: -1}, "Drain": {Drain: -1},
		"MaxConnAge": {MaxConnAge: -1}, "ConnAgeGrace": {ConnAgeGrace: -1},
	} {
		if _, err := kernel.NewServer(&kernel.ServerOptions{Limits: l}); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("a server's %s: %v", name, err)
		}
		if _, err := kernel.NewClient("a:1", &kernel.ClientOptions{Limits: l}); !errors.Is(err, kernel.ErrLimits) {
			t.Errorf("a client's %s: %v", name, err)
		}
	}
}
