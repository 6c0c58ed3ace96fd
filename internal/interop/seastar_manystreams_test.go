package interop

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// An addressed listener is one in memory whose connections are from addresses: what the
// server limits by address it limits here.
type addressed struct {
	*kerneltest.Listener
	mu   sync.Mutex
	host string // of the next connections
}

func (l *addressed) from(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.host = host
}

func (l *addressed) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return located{nc, l.host}, nil
}

type located struct {
	net.Conn
	host string
}

func (c located) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.host), Port: 1} }

// addressedServer is a server in memory for Seastar's wire, whose clients have addresses.
func addressedServer(t *testing.T, l kernel.Limits) (*kernel.Server, *addressed) {
	t.Helper()
	srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(quietServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{&seastar.Protocol{}}, Limits: l,
	})))
	ln := &addressed{Listener: kerneltest.Listen(), host: "10.0.0.1"}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return srv, ln
}

func (l *addressed) client(t *testing.T, limits kernel.Limits) *kernel.Client {
	t.Helper()
	c := testkit.Must[*kernel.Client](t)(kernel.Dial(context.Background(), "seastar://memory:0", quietClient(&kernel.ClientOptions{
		Protocols: []frame.Protocol{&seastar.Protocol{}}, Limits: limits, Dial: l.Dial,
	})))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A client may open its streams all at once: their connections wait for their handshakes,
// and count for the connection with the calls, not for the client's address.
func TestSeastarManyStreamsAtOnce(t *testing.T) {
	streams := 3000
	if testkit.RaceEnabled { // which allows 8,128 goroutines
		streams = 1200
	}
	synctest.Test(t, func(t *testing.T) {
		limits := kernel.Limits{MaxStreams: 4000, MaxConns: kernel.Unlimited}
		srv, ln := addressedServer(t, limits)
		ok(t, rpc.HandleUnary(srv, kernel.Verb(1), func(_ context.Context, src *intSource) (*intSink, error) {
			out := rpc.MakeSink[int32](src)
			src.Go(func(ctx context.Context) error {
				n, err := src.Receive(ctx)
				if err != nil {
					return err
				}
				return out.Send(ctx, n)
			})
			return out, nil
		}, nil))
		client := ln.client(t, limits)
		ctx := context.Background()
		sinks := make([]*intSink, streams)
		var wg sync.WaitGroup
		for i := range sinks {
			wg.Go(func() {
				var err error
				if sinks[i], err = rpc.NewSink[int32](ctx, client, nil); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		synctest.Wait() // the client knows of a connection before the server has noted it
		if s := srv.Stats(); s.Conns != streams+1 || s.Refused != 0 || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		for i, k := range sinks {
			wg.Go(func() {
				src, err := rpc.Call[*intSource, *intSink](ctx, client, kernel.Verb(1), k, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if err := k.Send(ctx, int32(i)); err != nil {
					t.Error(err)
				}
				if n, err := src.Receive(ctx); n != int32(i) || err != nil {
					t.Errorf("%d came back as %d, %v", i, n, err)
				}
				if err := k.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Streams don't let one address have all connections of a server.
func TestSeastarStreamsLeaveConnectionsToOthers(t *testing.T) {
	const most, each = 20, 4
	synctest.Test(t, func(t *testing.T) {
		srv, ln := addressedServer(t, kernel.Limits{MaxConns: most, MaxConnsPerAddr: each})
		tg := &target{&testkit.Target{T: t, Srv: srv, Dial: ln.Dial}}
		parent := tg.hand()
		stream := func() bool {
			nc := tg.Connect()
			_, err := nc.Write(rawHello(rawStreamParent, parent.id))
			if err == nil {
				_, err = nc.Read(make([]byte, 1))
			}
			return err == nil
		}
		open := 0
		for stream() {
			open++
		}
		if want := most/2 - 1 + each - 1; open != want { // the half, and what an address may have
			t.Errorf("%d streams are open, want %d", open, want)
		}
		ln.from("10.0.0.3")
		tg.hand()
	})
}

// A server that has no room for a stream closes its connection without a word. The client
// says so, after it has tried again.
func TestSeastarARefusedStreamIsTriedAgain(t *testing.T) {
	for name, refusals := range map[string]int{"until there is room": 2, "in vain": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var peers []net.Conn
				asked := 0
				client := testkit.Must[*kernel.Client](t)(kernel.Dial(t.Context(), "seastar://memory:0", quietClient(&kernel.ClientOptions{
					Protocols: []frame.Protocol{&seastar.Protocol{}},
					Dial: func(context.Context, string, string) (net.Conn, error) {
						near, far := conn.Pipe()
						peers = append(peers, far)
						id := uint64(len(peers)) << 16
						go func() {
							if _, child := readRawHello(t, far)[rawStreamParent]; child {
								if asked++; asked <= refusals {
									_ = far.Close()
									return
								}
							}
							_, _ = far.Write(rawHello(rawConnectionID, rawID(id)))
						}()
						return near, nil
					},
				})))
				defer func() {
					_ = client.Close()
					for _, nc := range peers {
						_ = nc.Close()
					}
				}()
				s, err := client.Open(t.Context(), "", nil)
				if asked != 3 {
					t.Errorf("the server is asked %d times", asked)
				}
				if refusals < 3 {
					ok(t, err)
					s.Abort(status.Cancelled, "enough")
					return
				}
				var ce *status.ConnError
				if !errors.As(err, &ce) || ce.Code != status.Refused || !ce.Remote || !strings.Contains(err.Error(), "it has too many") {
					t.Errorf("a refused stream: %v", err)
				}
				ok(t, client.Conns()[0].Err())
			})
		})
	}
}
