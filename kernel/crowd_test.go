package kernel_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A haltingConn is read no more while somebody has the token.
type haltingConn struct {
	net.Conn
	token chan struct{}
}

func (c haltingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	<-c.token
	c.token <- struct{}{}
	return n, err
}

// A stream that was evicted counts no longer for MaxTotalStreams, though its peer, which reads
// nothing, can't be told. When it is told, nothing is counted twice.
func TestEvictedStreamsOfADeafPeerDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		token := make(chan struct{}, 1)
		token <- struct{}{}
		ln := kerneltest.Listen()
		srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{InFlight: 16 << 20, OutQueue: 16 << 20}}))
		ok(t, err)
		begin := make(chan struct{})
		srv.Handle("sender", func(ctx context.Context, s *kernel.Stream) error {
			_ = s.Idle() // accepts
			<-begin
			for {
				m := sized(1000, 's')
				if err := s.Send(ctx, m); err != nil {
					m.Release()
					return err
				}
			}
		})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, ln) }()
		client, err := kernel.Dial(ctx, kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := ln.Dial(ctx, network, addr)
			return haltingConn{nc, token}, err
		}}))
		ok(t, err)
		for range 20 {
			s, err := client.Open(ctx, "sender", nil)
			ok(t, err)
			_, _, err = s.Accepted(ctx)
			ok(t, err)
		}
		want := func(when string, counted, open int) {
			t.Helper()
			synctest.Wait()
			if n, m := srv.Stats().Streams, srv.Conns()[0].Snapshot().Streams; n != counted || m != open {
				t.Errorf("%s the server counts %d streams, the connection has %d; want %d, %d", when, n, m, counted, open)
			}
		}
		want("at first", 20, 20)
		<-token
		close(begin)
		synctest.Wait() // what is under way fills up
		if n := srv.Conns()[0].EvictNewest(5); n != 5 {
			t.Fatalf("%d were evicted", n)
		}
		want("after five were evicted", 15, 20)
		if n := srv.Conns()[0].EvictNewest(100); n != 15 {
			t.Errorf("%d more were evicted", n)
		}
		want("after all were evicted", 0, 20)
		token <- struct{}{}
		want("when the peer has read that", 0, 0)
		ok(t, client.Close())
		_ = srv.Close()
		<-served
	})
}
