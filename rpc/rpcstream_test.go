package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/status"
)

// The tests in this file are those that Seastar has of its RPC streams, over
// sluice's own wire and over Seastar's: one run of traffic, let go or disturbed at a
// point.

// A traffic is count numbers one way and count strings the other, on the two
// halves of a stream that a call passes.
type traffic struct {
	count    int
	gap      time.Duration // between two values
	atClient func(n int)   // is called before the client sends value n, from 1
	atServer func(n int)   // before the server sends its own
	answered chan struct{} // closed when the client has the call's result
	seastar  bool          // over that wire

	mu      sync.Mutex
	started int // functions of the handler
	running int // of those
	result
}

// A result is what each side of it saw.
type result struct {
	call                   error // NewSink's or Call's
	sent, closed, received error // the client's: the first error of Send, Close's, and the source's end
	strings                int   // that the client received
	served                 bool  // the handler ran
	replied, read          error // the handler's: the first error of Send, and the source's end
	sum                    int   // of the numbers that it received
}

// clean tells whether both sides saw everything and an end in order.
func (r *result) clean(count int) bool {
	return r.call == nil && r.sent == nil && r.closed == nil && r.received == io.EOF && r.strings == count &&
		r.served && r.replied == nil && r.read == io.EOF && r.sum == count*(count+1)/2
}

// check fails where an end in order was seen by who has not got everything.
func (r *result) check(t *testing.T, count int) {
	t.Helper()
	if r.received == io.EOF && r.strings != count {
		t.Errorf("the client saw an end in order after %d of %d values: %+v", r.strings, count, r)
	}
	if r.read == io.EOF && r.sum != count*(count+1)/2 {
		t.Errorf("the server saw an end in order after a sum of %d: %+v", r.sum, r)
	}
}

// register has srv serve its part.
func (p *traffic) register(t testing.TB, srv *kernel.Server) {
	ok(t, rpc.HandleUnary(srv, kernel.Verb(1), func(_ context.Context, src *intSource) (*rpc.Sink[string], error) {
		out := rpc.MakeSink[string](src)
		p.mu.Lock()
		p.served = true
		p.mu.Unlock()
		src.Go(p.serve(func(ctx context.Context) error { return p.reply(ctx, out) }, &p.replied))
		src.Go(p.serve(func(ctx context.Context) error { return p.add(ctx, src) }, &p.read))
		return out, nil
	}, nil))
}

// serve notes how f ended.
func (p *traffic) serve(f func(context.Context) error, end *error) func(context.Context) error {
	return func(ctx context.Context) error {
		p.mu.Lock()
		p.started++
		p.running++
		p.mu.Unlock()
		err := f(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		*end = err
		p.running--
		if err == io.EOF {
			err = nil
		}
		return err
	}
}

func (p *traffic) reply(ctx context.Context, out *rpc.Sink[string]) error {
	for n := range p.count {
		if p.atServer != nil {
			p.atServer(n + 1)
		}
		if err := out.Send(ctx, fmt.Sprint(n)); err != nil {
			return err
		}
		time.Sleep(p.gap)
	}
	return out.CloseSend()
}

func (p *traffic) add(ctx context.Context, src *intSource) error {
	for {
		n, err := src.Receive(ctx)
		if err != nil {
			_, again := src.Receive(ctx)
			if again != err {
				return fmt.Errorf("the end is %w, and then %w", err, again)
			}
			return err
		}
		p.mu.Lock()
		p.sum += int(n)
		p.mu.Unlock()
	}
}

// run is the client's part. It returns when both sides have ended.
func (p *traffic) run(ctx context.Context, t *testing.T, client *kernel.Client) *result {
	t.Helper()
	sink, err := rpc.NewSink[int32](ctx, client, nil)
	var src *rpc.Source[string]
	if err == nil {
		src, err = rpc.Call[*rpc.Source[string], *intSink](ctx, client, kernel.Verb(1), sink, nil)
	}
	if p.answered != nil {
		close(p.answered)
	}
	if p.call = err; err == nil {
		received := make(chan struct{})
		go func() {
			defer close(received)
			p.receive(ctx, src)
		}()
		p.send(ctx, sink)
		<-received
		p.closed = sink.Close(ctx)
	}
	return &p.result
}

func (p *traffic) send(ctx context.Context, sink *intSink) {
	for n := range p.count {
		if p.atClient != nil {
			p.atClient(n + 1)
		}
		if p.sent = sink.Send(ctx, int32(n+1)); p.sent != nil {
			return
		}
		time.Sleep(p.gap)
	}
	p.sent = sink.CloseSend()
}

func (p *traffic) receive(ctx context.Context, src *rpc.Source[string]) {
	for {
		s, err := src.Receive(ctx)
		if err == nil && s != fmt.Sprint(p.strings) {
			err = fmt.Errorf("value %d is %q", p.strings, s)
		}
		if err != nil {
			p.received = err
			return
		}
		p.strings++
	}
}

// settle waits until the handler's functions have returned: they run if the call
// did not fail, and may if it did.
func (p *traffic) settle(t testing.TB) {
	t.Helper()
	eventually(t, "the handler's functions to return", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.running == 0 && (p.started == 2 || p.call != nil)
	})
}

// now is the result so far. Where the call failed the handler may still be at it.
func (p *traffic) now() result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result
}

// everywhere runs f in memory, where a millisecond passes between values and a
// hang is noticed at once, and over TCP, where they follow each other.
func everywhere(t *testing.T, so *kernel.ServerOptions, f func(t *testing.T, w *world, p *traffic)) {
	t.Run("memory", func(t *testing.T) {
		inBubble(t, so, nil, func(t *testing.T, w *world) {
			f(t, w, &traffic{count: 100, gap: time.Millisecond})
		})
	})
	for _, tr := range []struct {
		name  string
		start starter
	}{{"loops", loops}, {"netconn", netConn}, {"seastar", onSeastar(loops)}} {
		t.Run(tr.name, func(t *testing.T) { f(t, newWorld(t, tr.start, so, nil), &traffic{count: 100}) })
	}
}

// onSeastar is start with Seastar's protocol.
func onSeastar(start starter) starter {
	return func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		speakSeastar(so, co)
		return start(t, so, co)
	}
}

func speakSeastar(so *kernel.ServerOptions, co *kernel.ClientOptions) {
	so.Protocols = []frame.Protocol{native.Protocol{}, &seastar.Protocol{}}
	co.Protocols = []frame.Protocol{&seastar.Protocol{}}
}

// seastarInMemory is kerneltest.Start over Seastar's wire: on a path that holds little.
func seastarInMemory(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	s, c := *so, *co
	speakSeastar(&s, &c)
	return kerneltest.Start(t, &s, &c)
}

func TestAStreamBothWays(t *testing.T) {
	everywhere(t, nil, func(t *testing.T, w *world, p *traffic) {
		p.register(t, w.Srv)
		r := p.run(w.Ctx, t, w.Client)
		p.settle(t)
		if !r.clean(p.count) {
			t.Errorf("%+v", r)
		}
		ok(t, w.Client.Close())
	})
}

// wantCut checks that neither side saw an end in order, nor a send that went
// nowhere and said nothing.
func (p *traffic) wantCut(t *testing.T) {
	t.Helper()
	p.settle(t)
	r := &p.result
	r.check(t, p.count)
	for what, err := range map[string]error{
		"the client's source": r.received, "the client's Close": r.closed,
		"the server's source": r.read, "the server's sink": r.replied,
	} {
		var se *status.StreamError
		if !errors.As(err, &se) || se.Code != status.ConnectionLost && !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r.call != nil || r.sent == nil || r.closed == nil {
		t.Errorf("%+v", r)
	}
}

func TestAStreamWhoseClientStops(t *testing.T) {
	everywhere(t, nil, func(t *testing.T, w *world, p *traffic) {
		w.Loose = true
		p.register(t, w.Srv)
		p.atClient = func(n int) {
			if n == 50 {
				ok(t, w.Client.Close())
			}
		}
		p.atServer = holdAt50(p, w.Srv.Conns)
		p.run(w.Ctx, t, w.Client)
		p.wantCut(t)
	})
}

// holdAt50 keeps the side that is not to decide from having sent everything
// before it has lost its connections.
func holdAt50(p *traffic, conns func() []*kernel.Conn) func(int) {
	return func(n int) {
		for n == 50 && p.gap == 0 && len(conns()) > 0 {
			runtime.Gosched()
		}
	}
}

func TestAStreamWhoseServerStops(t *testing.T) {
	everywhere(t, nil, func(t *testing.T, w *world, p *traffic) {
		w.Loose = true
		p.register(t, w.Srv)
		p.answered = make(chan struct{})
		p.atServer = func(n int) {
			if n == 50 {
				<-p.answered
				ok(t, w.Srv.Close())
			}
		}
		p.atClient = holdAt50(p, w.Client.Conns)
		p.run(w.Ctx, t, w.Client)
		p.wantCut(t)
		ok(t, w.Client.Close())
	})
}

var errGlitch = errors.New("glitch")

// A glitch is a path that fails one side's read or write number n, from 1, and
// all after it.
type glitch struct {
	glitchKind
	n  int64
	at atomic.Int64
}

type glitchKind struct {
	read bool // else a write
	half bool // of what is to be written gets through
}

func (k glitchKind) String() string {
	switch {
	case k.read:
		return "read"
	case k.half:
		return "half write"
	}
	return "write"
}

func (g *glitch) hit() bool { return g.at.Add(1) >= g.n }

// happened tells whether it came to that.
func (g *glitch) happened() bool { return g.at.Load() >= g.n }

type glitchConn struct {
	net.Conn
	g *glitch
}

func (c *glitchConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.g.read && c.g.hit() {
		_ = c.Conn.Close()
		return 0, errGlitch
	}
	return n, err
}

func (c *glitchConn) Write(p []byte) (int, error) {
	if c.g.read || !c.g.hit() {
		return c.Conn.Write(p)
	}
	n := 0
	if c.g.half {
		n, _ = c.Conn.Write(p[:len(p)/2])
	}
	_ = c.Conn.Close()
	return n, errGlitch
}

// A glitchListener accepts connections with a glitch.
type glitchListener struct {
	net.Listener
	g *glitch
}

func (l *glitchListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &glitchConn{c, l.g}, nil
}

// tryGlitch runs a run over a path with a glitch on one side, from the first
// dial to the end of both.
func tryGlitch(t *testing.T, g *glitch, atServer bool, ln net.Listener, dial func(context.Context, string, string) (net.Conn, error), p *traffic) (dialed error) {
	t.Helper()
	so, co := quietServer(nil), quietClient(nil)
	if p.seastar {
		speakSeastar(so, co)
	}
	srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(so))
	p.register(t, srv)
	co.Dial = dial
	if atServer {
		ln = &glitchListener{ln, g}
	} else {
		co.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &glitchConn{c, g}, nil
		}
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	target := kerneltest.Target
	if _, tcp := ln.Addr().(*net.TCPAddr); tcp {
		target = ln.Addr().String()
	}
	client, dialed := kernel.Dial(ctx, target, co)
	p.call = dialed
	if dialed == nil {
		p.run(ctx, t, client)
		if p.seastar { // nobody tells when the server's program was handed the end
			p.letServerFinish(g)
		}
		ok(t, client.Close())
	}
	ok(t, srv.Close())
	<-served
	p.settle(t)
	r := p.now()
	r.check(t, p.count)
	return dialed
}

// letServerFinish gives the handler's functions a moment, and more where nothing was
// in their way.
func (p *traffic) letServerFinish(g *glitch) {
	start := time.Now()
	for d := time.Duration(0); d < 300*time.Millisecond || !g.happened() && d < patience; d = time.Since(start) {
		time.Sleep(time.Millisecond)
		p.mu.Lock()
		over := p.running == 0 && (p.started == 2 || p.call != nil)
		p.mu.Unlock()
		if over {
			return
		}
	}
}

// A connection that fails at the server's 50th read ends the stream on both sides,
// and nobody takes that for an end in order.
func TestAStreamWhoseConnectionFails(t *testing.T) {
	onBothWires(t, func(t *testing.T, seastar bool) {
		ln := kerneltest.Listen()
		p := &traffic{count: 100, gap: time.Millisecond, seastar: seastar}
		g := &glitch{glitchKind: glitchKind{read: true}, n: 50}
		if err := tryGlitch(t, g, true, ln, ln.Dial, p); err != nil || !g.happened() {
			t.Fatalf("%v, %d reads", err, g.at.Load())
		}
		p.wantCut(t)
	})
}

// onBothWires runs f in a bubble for each wire that Seastar's own tests make sense on.
func onBothWires(t *testing.T, f func(t *testing.T, seastar bool)) {
	t.Helper()
	for name, seastar := range map[string]bool{"native": false, "seastar": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, seastar) })
		})
	}
}

// A connection that fails at the server's first read fails the dial, or who asks
// for a connection later, and the client ends like any other.
func TestAConnectionThatFailsInItsHandshake(t *testing.T) {
	onBothWires(t, func(t *testing.T, seastar bool) {
		ln := kerneltest.Listen()
		g := &glitch{glitchKind: glitchKind{read: true}, n: 1}
		err := tryGlitch(t, g, true, ln, ln.Dial, &traffic{count: 1, seastar: seastar})
		var ce *status.ConnError
		if !errors.As(err, &ce) || ce.Op != "handshake" || !g.happened() {
			t.Errorf("%v", err)
		}
	})
	// The same for a client that connects when it needs to.
	onBothWires(t, func(t *testing.T, seastar bool) {
		ln := kerneltest.Listen()
		so, co := quietServer(nil), quietClient(nil)
		if seastar {
			speakSeastar(so, co)
		}
		srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(so))
		g := &glitch{glitchKind: glitchKind{read: true}, n: 1}
		go func() { _ = srv.Serve(context.Background(), &glitchListener{ln, g}) }()
		co.Dial = ln.Dial
		client := testkit.Must[*kernel.Client](t)(kernel.NewClient(kerneltest.Target, co))
		sink, err := rpc.NewSink[int32](context.Background(), client, nil)
		if !seastar { // where NewSink connects
			_, err = rpc.Call[struct{}, *intSink](context.Background(), client, kernel.Verb(1), sink, nil)
			isErr(t, "the sink", sink.Send(context.Background(), 1), err)
		}
		var ce *status.ConnError
		if !errors.As(err, &ce) {
			t.Errorf("%v", err)
		}
		ok(t, client.Close())
		ok(t, srv.Close())
	})
}

// Whichever read or write fails, on either side: nobody hangs, and nobody sees an
// end in order that is none. The numbers go up until nothing is left to fail.
func TestEveryReadAndWriteMayFail(t *testing.T) {
	for _, atServer := range []bool{false, true} {
		for _, kind := range []glitchKind{{read: true}, {}, {half: true}} {
			side := "client's "
			if atServer {
				side = "server's "
			}
			t.Run(side+kind.String()+" in memory", func(t *testing.T) {
				untilNoGlitch(t, kind, func(g *glitch) (p *traffic, dialed error) {
					synctest.Test(t, func(t *testing.T) {
						ln := kerneltest.Listen()
						p = &traffic{count: 50, gap: time.Millisecond}
						dialed = tryGlitch(t, g, atServer, ln, ln.Dial, p)
					})
					return p, dialed
				})
			})
			t.Run(side+kind.String()+" over TCP", func(t *testing.T) {
				untilNoGlitch(t, kind, func(g *glitch) (p *traffic, dialed error) {
					p = &traffic{count: 2000}
					return p, tryGlitch(t, g, atServer, listen(t), (&net.Dialer{}).DialContext, p)
				})
			})
			t.Run(side+kind.String()+" over Seastar's wire", func(t *testing.T) {
				untilNoGlitch(t, kind, func(g *glitch) (p *traffic, dialed error) {
					p = &traffic{count: 50, seastar: true}
					return p, tryGlitch(t, g, atServer, listen(t), (&net.Dialer{}).DialContext, p)
				})
			})
		}
	}
}

// untilNoGlitch tries a glitch further and further on, until it no longer happens.
func untilNoGlitch(t *testing.T, kind glitchKind, try func(*glitch) (*traffic, error)) {
	t.Helper()
	failed := 0
	for n := int64(1); ; n++ {
		g := &glitch{glitchKind: kind, n: n}
		p, dialed := try(g)
		r := p.now()
		clean := dialed == nil && r.clean(p.count)
		if !clean {
			failed++
		}
		if t.Failed() {
			t.Fatalf("at number %d", n)
		}
		if !g.happened() {
			if !clean {
				t.Errorf("nothing failed, and yet: %v, %+v", dialed, r)
			}
			if failed == 0 {
				t.Error("no glitch did any harm")
			}
			t.Logf("%d glitches did harm, the last %s was number %d", failed, kind, g.at.Load())
			return
		}
	}
}

// Servers send as fast as they can to clients that read at their own pace: every
// value arrives, one end comes, and what waits between is bounded.
func TestBackPressureBoundsWhatWaits(t *testing.T) {
	count := 50_000
	if raceEnabled {
		count /= 10
	}
	const (
		streams = 4
		window  = 64 << 10
		// 64 bytes and 32 for each, in the window and in the source's buffer; one
		// is in the sender's hand.
		most = window/96 + 16 + 1
		// Where TCP is all there is: 64 bytes and 4 for each, 100 KiB with the sender,
		// 256 KiB on the way, and as much with a receiver who reads 256 KiB at once.
		mostUnpaced = 1 << 20 / 68
	)
	type value [8]uint64
	for _, tr := range []struct {
		name  string
		start starter
		most  int64
	}{{"loops", loops, most}, {"netconn", netConn, most}, {"seastar", seastarInMemory, mostUnpaced}} {
		t.Run(tr.name, func(t *testing.T) {
			w := newWorld(t, tr.start, nil, nil)
			var sent [streams]atomic.Int64
			var after [streams]error
			server, call, _ := by(codec.Fixed)
			ok(t, rpc.HandleUnary(w.Srv, kernel.Verb(1), func(_ context.Context, in []*intSource) ([]*rpc.Sink[value], error) {
				var outs []*rpc.Sink[value]
				for i, src := range in {
					out := rpc.MakeSink[value](src)
					outs = append(outs, out)
					src.Go(func(ctx context.Context) error {
						for n := range uint64(count) {
							if err := out.Send(ctx, value{n}); err != nil {
								return err
							}
							sent[i].Add(1)
						}
						if err := out.CloseSend(); err != nil {
							return err
						}
						after[i] = out.Send(ctx, value{})
						_, err := src.Receive(ctx)
						if err == io.EOF {
							err = nil
						}
						return err
					})
				}
				return outs, nil
			}, server))
			var sinks []*intSink
			for range streams {
				sinks = append(sinks, testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client,
					&rpc.SinkOptions{Encoding: codec.Fixed, Stream: kernel.StreamOptions{Window: window}})))
			}
			sources := testkit.Must[[]*rpc.Source[value]](t)(rpc.Call[[]*rpc.Source[value], []*intSink](w.Ctx, w.Client, kernel.Verb(1), sinks, call))
			var wg sync.WaitGroup
			for i, src := range sources {
				wg.Go(func() {
					for n := range uint64(count) {
						if n%uint64(count/50) == 0 {
							for range 1000 { // everybody else gets ahead
								runtime.Gosched()
							}
						}
						v, err := src.Receive(w.Ctx)
						if err != nil || v[0] != n {
							t.Errorf("value %d is %v, %v", n, v, err)
							return
						}
						if ahead := sent[i].Load() - int64(n+1); ahead > tr.most {
							t.Errorf("%d values are under way, at most %d", ahead, tr.most)
							return
						}
					}
					endsInOrder(t, w, src)
					if err := sinks[i].Close(w.Ctx); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for i := range sources {
				isErr(t, "Send after CloseSend", after[i], kernel.ErrSendClosed)
			}
		})
	}
}
