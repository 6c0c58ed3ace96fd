package kernel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A panic ends the handler's stream with INTERNAL, is logged with its stack and
// counted; the other streams of the connection go on.
func TestAPanicEndsItsStreamOnly(t *testing.T) {
	logs := &journal{}
	overAll(t, &kernel.ServerOptions{Logger: logs.Logger()}, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Srv.Handle("panics", func(_ context.Context, s *kernel.Stream) error {
			_ = s.Send(s.Context(), text("x"))
			panicsHere()
			return nil
		})
		w.Srv.HandleOffer("panics early", func(context.Context, *kernel.Offer) error { panic("early") })
		other := w.Open("echo")
		for method, code := range map[string]status.Code{
			"panics": w.told(status.Internal), "panics early": w.answered(status.Internal),
		} {
			s := w.Open(method)
			w.WantDone(s)
			se := wantCode(t, s.Err(), code)
			if !se.Remote || strings.Contains(se.Reason, "secret") {
				t.Errorf("the peer is told %+v", se)
			}
			drain(s)
		}
		w.Send(other, "alive")
		w.Want(other, "alive")
		_ = other.Close(w.Ctx)
		w.Eventually("two panics to be counted", func() bool { return w.Srv.Stats().Panics == 2 })
		w.Eventually("them to be logged", func() bool {
			return strings.Contains(logs.String(), "secret") && strings.Contains(logs.String(), "panicsHere")
		}, logs.String)
	})
}

func panicsHere() { panic("secret") }

// Draining: streams that run finish, the connection ends cleanly with the last of them,
// and new opens are refused as not processed.
func TestDrainLetsStreamsFinish(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		w.Send(s, "before")
		w.Want(s, "before")
		conn := w.Client.Conns()[0]
		down := make(chan error, 1)
		go func() { down <- w.Srv.Shutdown(w.Ctx) }()
		w.Eventually("the GOAWAY", func() bool {
			s, err := conn.Open(w.Ctx, "echo", nil)
			if err == nil { // either taken before the GOAWAY, or refused for it
				_, _, _ = s.Accepted(w.Ctx)
				s.Abort(status.Cancelled, "only a try")
			}
			return errors.Is(err, kernel.ErrGoingAway)
		})
		for i := range 10 {
			w.Send(s, "%d", i)
			w.Want(s, "%d", i)
		}
		wantOpen(t, "Shutdown", down)
		if err := s.Close(w.Ctx); err != nil {
			t.Error(err)
		}
		if err := testkit.Handled(w.World, down); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		select {
		case <-conn.Done():
		case <-w.Ctx.Done():
			t.Fatal("the connection did not end")
		}
		w.Eventually("no connection to be left", func() bool { return w.Srv.Stats().Conns == 0 })
	})
}

// Opens race the GOAWAY, with data behind them: each either runs to its end or fails as
// not processed, and no handler saw that one.
func TestOpensRacingTheGoAway(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		var mu sync.Mutex
		seen := map[string]bool{}
		w.Srv.Handle("race", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			mu.Lock()
			seen[string(m.Bytes())] = true
			mu.Unlock()
			return s.Send(ctx, m)
		})
		conn := w.Client.Conns()[0]
		var wg sync.WaitGroup
		served, refused := 0, 0
		start := make(chan struct{})
		for g := range 4 {
			wg.Go(func() {
				<-start
				for i := 0; ; i++ {
					name := decimal(g) + "/" + decimal(i)
					s, err := conn.Open(w.Ctx, "race", nil)
					if err != nil {
						var ce *status.ConnError
						if !errors.Is(err, kernel.ErrGoingAway) && !errors.As(err, &ce) {
							t.Errorf("open: %v", err)
						}
						return
					}
					m := text("%s", name)
					if s.Send(w.Ctx, m) != nil {
						m.Release()
					}
					for range 3 { // more than can be of use
						m := sized(500, 1)
						if s.Send(w.Ctx, m) != nil {
							m.Release()
						}
					}
					m, err = s.Receive(w.Ctx)
					mu.Lock()
					if err == nil {
						m.Release()
						served++
						_ = s.CloseSend()
					} else {
						var se *status.StreamError
						if !errors.As(err, &se) || se.Code != status.GoingAway || !se.NotProcessed || seen[name] {
							t.Errorf("stream %s: %v, a handler saw it: %v", name, err, seen[name])
						}
						refused++
					}
					mu.Unlock()
					drain(s)
				}
			})
		}
		close(start)
		w.Eventually("some streams", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return served > 20
		})
		if err := w.Srv.Shutdown(w.Ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		wg.Wait()
		t.Logf("%d served, %d refused", served, refused)
	})
}

// The other way: the server opens streams while the client closes.
func TestServersOpensRacingTheClientsEnd(t *testing.T) {
	handlers := serving("race", echo)
	conns := make(chan *kernel.Conn, 10)
	so := &kernel.ServerOptions{OnConn: func(c *kernel.Conn) { conns <- c }}
	overAll(t, so, &kernel.ClientOptions{Handlers: handlers}, func(t *testing.T, w *world) {
		w.Loose = true
		conn := testkit.Handled(w.World, conns)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					s, err := conn.Open(w.Ctx, "race", nil)
					if err != nil {
						return
					}
					m := text("x")
					if s.Send(w.Ctx, m) != nil {
						m.Release()
					}
					_ = s.CloseSend()
					drain(s)
					w.WantDone(s)
				}
			})
		}
		for conn.Streams() == 0 {
			time.Sleep(time.Millisecond)
		}
		_ = w.Client.Close()
		wg.Wait()
	})
}

// The drain's deadline resets what is left: the streams fail, on both sides, and Shutdown
// returns an error.
func TestTheDrainsDeadlineCuts(t *testing.T) {
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{Drain: 7 * time.Second}}, nil, func(t *testing.T, w *world) {
		w.Loose = true
		told := make(chan struct{})
		w.Srv.Handle("forever", func(ctx context.Context, s *kernel.Stream) error {
			_ = s.Send(ctx, text("running"))
			<-ctx.Done()
			close(told)
			return nil
		})
		s := w.Open("forever")
		w.Want(s, "running")
		start := time.Now()
		err := w.Srv.Shutdown(w.Ctx)
		if d := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || d < 7*time.Second || d > 8*time.Second {
			t.Errorf("Shutdown: %v after %v", err, d)
		}
		w.WantErr(s, status.ConnectionLost)
		<-told
	})
}

// A client that Authenticate refuses opens no stream; what Authenticate returns for a peer
// comes with each of its streams.
func TestAuthentication(t *testing.T) {
	overAllBut(t, func(t *testing.T, start starter) {
		so := &kernel.ServerOptions{Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
			if p.Addr == nil || (p.TLS != nil) != strings.HasSuffix(t.Name(), "/tls") {
				t.Errorf("peer %+v", p)
			}
			if string(p.Token) != "sesame" {
				return nil, errors.New("who are you")
			}
			return "ali", nil
		}}
		w := newWorld(t, start, so, &kernel.ClientOptions{Token: []byte("sesame")})
		w.Srv.HandleOffer("who", func(ctx context.Context, o *kernel.Offer) error {
			s, err := o.Accept(pool.Message{}, nil)
			if err != nil {
				return err
			}
			if err := s.Send(ctx, text("%v %v", o.Conn().Identity(), s.Conn().Identity())); err != nil {
				return err
			}
			s.CloseReceive(status.OK)
			return s.CloseSend()
		})
		s := w.Open("who")
		w.Want(s, "ali ali")
		_ = s.Close(w.Ctx)
	})
}

func TestAuthenticationRefuses(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for name, hook := range map[string]func(ctx context.Context) error{
		"says no": func(context.Context) error { return errors.New("a secret") },
		"says why": func(context.Context) error {
			return &status.HandlerError{Code: status.PermissionDenied, Reason: "locked"}
		},
		"hangs":                 func(context.Context) error { <-hang; return nil },
		"waits for its context": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"panics":                func(context.Context) error { panic("oops") },
	} {
		t.Run(name, func(t *testing.T) {
			so := &kernel.ServerOptions{
				Authenticate: func(ctx context.Context, _ kernel.Peer) (kernel.Identity, error) { return nil, hook(ctx) },
			}
			if name == "hangs" || name == "waits for its context" { // the others must be in time
				so.Limits.Authenticate = 50 * time.Millisecond
			}
			srv, err := kernel.NewServer(quietServer(so))
			if err != nil {
				t.Fatal(err)
			}
			ln := listen(t)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			_, err = kernel.Dial(t.Context(), ln.Addr().String(), nil)
			var ce *status.ConnError
			code, text := status.Unauthenticated, "UNAUTHENTICATED: not authenticated"
			if name == "says why" {
				code, text = status.PermissionDenied, "PERMISSION_DENIED: locked"
			}
			if !errors.As(err, &ce) || ce.Op != "handshake" || !ce.Remote || !errors.Is(err, &status.ConnError{Code: code}) ||
				!strings.HasSuffix(err.Error(), ": by peer: "+text) {
				t.Errorf("dial: %v", err)
			}
			eventually(t, "the failure to be counted", func() bool { return srv.Stats().Failed == 1 })
			if st := srv.Stats(); st.Accepted != 0 || st.Conns != 0 {
				t.Errorf("%+v", st)
			}
			_ = srv.Close()
			<-served
		})
	}
}

// Authorize decides on each open; one that hangs refuses in time, and delays no other
// open.
func TestAuthorization(t *testing.T) {
	overAllBut(t, func(t *testing.T, start starter) {
		hang := make(chan struct{})
		so := &kernel.ServerOptions{
			Authorize: func(_ context.Context, id kernel.Identity, method string, md metadata.MD) error {
				switch {
				case id != nil:
					t.Errorf("identity %v", id)
				case method == "hangs":
					<-hang
				case method == "own code":
					return &status.HandlerError{Code: status.NotFound, Reason: "never heard of it"}
				case method == "panics":
					panic("oops")
				case md.Get("pass") == "":
					return errors.New("no pass")
				}
				return nil
			},
		}
		w := newWorld(t, start, so, nil)
		defer close(hang)
		ran := make(chan string, 10)
		for _, m := range []string{"echo", "hangs", "own code", "panics"} {
			w.Srv.Handle(m, func(ctx context.Context, s *kernel.Stream) error {
				ran <- m
				return echo(ctx, s)
			})
		}
		hung := w.Open("hangs")
		for method, code := range map[string]status.Code{
			"echo": status.PermissionDenied, "own code": status.NotFound,
		} {
			_, _, err := w.Open(method).Accepted(w.Ctx)
			if se := wantCode(t, err, code); se.NotProcessed != w.notProcessed(code) {
				t.Errorf("%s: %+v", method, se)
			}
		}
		_, _, err := w.Open("panics").Accepted(w.Ctx)
		wantCode(t, err, status.Internal)
		hung.Abort(status.Cancelled, "long enough") // whose limit is far off
		brief := *so
		brief.Limits.Authenticate = 50 * time.Millisecond
		other := newWorld(t, start, &brief, nil)
		other.Srv.Handle("hangs", func(context.Context, *kernel.Stream) error {
			ran <- "hangs"
			return nil
		})
		_, _, err = other.Open("hangs").Accepted(w.Ctx)
		if se := wantCode(t, err, status.Unavailable); se.NotProcessed != w.notProcessed(status.Unavailable) {
			t.Errorf("%+v", se)
		}
		wantOpen(t, "a handler without leave", ran)
		s, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "pass", Value: "1"}}})
		if err != nil {
			t.Fatal(err)
		}
		w.Send(s, "in")
		w.Want(s, "in")
		_ = s.Close(w.Ctx)
	})
}

// overAllBut is overAll for tests that make their own worlds.
func overAllBut(t *testing.T, f func(t *testing.T, start starter)) {
	t.Helper()
	for _, tr := range testkit.Transports {
		t.Run(tr.Name, func(t *testing.T) { f(t, tr.Start) })
	}
	for _, p := range foreigns {
		if !p.lacks(t.Name()) {
			t.Run(p.name, func(t *testing.T) { f(t, p.start) })
		}
	}
}

// Unary calls: one message each way, the handler's status, and the request left
// alone where the call fails.
func TestCalls(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Srv.Handle("fails", func(ctx context.Context, s *kernel.Stream) error {
			_ = s.Send(ctx, text("some of it"))
			return &status.HandlerError{Code: status.DataLoss, Reason: "and no more"}
		})
		w.Srv.Handle("slow", func(ctx context.Context, _ *kernel.Stream) error {
			<-ctx.Done()
			return ctx.Err()
		})
		w.Call("echo", "hello", "hello")
		w.Call("echo", "", "")
		req := text("mine")
		_, err := w.Client.Call(w.Ctx, "fails", req, nil)
		wantCode(t, err, status.DataLoss)
		for d := 20 * time.Millisecond; d < patience; d *= 10 {
			_, err = w.Client.Call(context.Background(), "slow", req, &kernel.CallOptions{Timeout: d})
			if se := (*status.StreamError)(nil); errors.As(err, &se) {
				break // else its time was over before it had a stream
			}
		}
		wantCode(t, err, status.DeadlineExceeded)
		_, err = w.Client.Call(w.Ctx, "unknown", req, nil)
		wantCode(t, err, status.Unimplemented)
		if string(req.Bytes()) != "mine" { // all failed: it is still ours
			t.Error("a failed call took its request")
		}
		reply, err := w.Client.Conns()[0].Call(w.Ctx, "echo", req, &kernel.CallOptions{Timeout: kernel.Unlimited})
		if err != nil || string(reply.Bytes()) != "mine" {
			t.Errorf("%q, %v", reply.Bytes(), err)
		}
		reply.Release()
	})
}

// A handler that sends no message, or two, has not answered a call.
func TestCallsWithoutTheOneReply(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("silent", func(context.Context, *kernel.Stream) error { return nil })
		w.Srv.Handle("twice", func(ctx context.Context, s *kernel.Stream) error {
			_ = s.Send(ctx, text("1"))
			return s.Send(ctx, text("2"))
		})
		req := text("mine")
		defer req.Release()
		if _, err := w.Client.Call(w.Ctx, "silent", req, nil); !errors.Is(err, kernel.ErrNoReply) {
			t.Errorf("silent: %v", err)
		}
		if _, err := w.Client.Call(w.Ctx, "twice", req, nil); err == nil || !strings.Contains(err.Error(), "more than one reply") {
			t.Errorf("twice: %v", err)
		}
	})
}

// A reply that comes when its call has failed is dropped: nobody else can release it. Checked
// builds count.
func TestAFailedCallKeepsNoReply(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		const late = 5 * time.Millisecond
		w.Srv.Handle("late", func(ctx context.Context, s *kernel.Stream) error {
			time.Sleep(late)
			return sendOrRelease(context.Background(), s, text("late"))
		})
		w.Srv.Handle("thrice", func(ctx context.Context, s *kernel.Stream) error {
			for _, m := range []string{"1", "2", "3"} {
				if err := sendOrRelease(ctx, s, text("%s", m)); err != nil {
					return err
				}
			}
			return nil
		})
		req := text("mine")
		defer req.Release()
		for range 3 {
			if _, err := w.Client.Call(w.Ctx, "thrice", req, nil); err == nil {
				t.Error("three replies are one")
			}
		}
		for range 100 {
			req := text("x")
			m, err := w.Client.Call(w.Ctx, "late", req, &kernel.CallOptions{Timeout: late})
			if err != nil {
				req.Release()
			}
			m.Release()
		}
	})
}

// A call that was refused as not processed is retried, a few times; one that a handler saw
// is not.
func TestOnlyRefusedCallsAreRetried(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		tries := make(chan string, 10)
		w.Srv.HandleOffer("busy", func(_ context.Context, o *kernel.Offer) error {
			tries <- "busy"
			o.Reject(&status.HandlerError{Code: status.Refused, Reason: "a handler saw it"})
			return nil
		})
		req := text("x")
		_, err := w.Client.Call(w.Ctx, "busy", req, nil)
		wantCode(t, err, w.answered(status.Refused))
		if len(tries) != 1 {
			t.Errorf("a call that a handler refused was made %d times", len(tries))
		}
		req.Release()
	})
	// Refused by a limit, before any handler: retried until there is room. One
	// handler runs on, one open waits for it; there is no room for a third.
	inBubble(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 1}}, nil, func(t *testing.T, w *world) {
		leave := make(chan struct{})
		w.Srv.Handle("holds", func(_ context.Context, s *kernel.Stream) error {
			s.Abort(status.Aborted, "") // the stream is over, the handler is not
			<-leave
			return nil
		})
		w.Srv.Handle("echo", echo)
		s := w.Open("holds")
		w.WantDone(s)
		s = w.Open("echo") // waits, and is canceled
		w.Quiesce()
		s.Abort(status.Cancelled, "")
		w.Quiesce()
		_, _, err := w.Open("echo").Accepted(w.Ctx)
		if se := wantCode(t, err, status.Refused); !se.NotProcessed {
			t.Errorf("%+v", se)
		}
		go func() {
			time.Sleep(12 * time.Millisecond)
			close(leave)
		}()
		w.Call("echo", "at last", "at last")
	})
}

// The server opens streams towards its client, by the same rules.
func TestServerOpenedStreams(t *testing.T) {
	handlers := serving("echo", echo)
	conns := make(chan *kernel.Conn, 10)
	so := &kernel.ServerOptions{OnConn: func(c *kernel.Conn) { conns <- c }}
	overAll(t, so, &kernel.ClientOptions{Handlers: handlers}, func(t *testing.T, w *world) {
		conn := testkit.Handled(w.World, conns)
		s, err := conn.Open(w.Ctx, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			w.Send(s, "%d", i)
			w.Want(s, "%d", i)
		}
		if err := s.Close(w.Ctx); err != nil || s.ID()%2 != 0 {
			t.Errorf("stream %d: %v", s.ID(), err)
		}
		reply, err := conn.Call(w.Ctx, "echo", text("call"), nil)
		if err != nil || string(reply.Bytes()) != "call" {
			t.Fatal(err)
		}
		reply.Release()
		s, err = conn.Open(w.Ctx, "nothing", nil)
		if err == nil {
			_, _, err = s.Accepted(w.Ctx)
		}
		wantCode(t, err, status.Unimplemented)
	})
}

// A dedicated stream has a connection of its own, which ends with it; its end does not
// affect the others.
func TestDedicatedConnections(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		common := w.Open("echo")
		s, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true})
		if err != nil {
			t.Fatal(err)
		}
		if s.Conn() == common.Conn() || len(w.Client.Conns()) != 2 {
			t.Fatal("it shares its connection")
		}
		w.Send(s, "x")
		w.Want(s, "x")
		if err := s.Close(w.Ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case <-s.Conn().Done():
		case <-w.Ctx.Done():
			t.Fatal("the connection did not end with its stream")
		}
		w.Eventually("the client to forget it", func() bool { return len(w.Client.Conns()) == 1 })
		second, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Dedicated: true})
		if err != nil {
			t.Fatal(err)
		}
		w.Send(second, "x")
		w.Want(second, "x")
		_ = second.Conn().Close()
		w.WantErr(second, status.ConnectionLost)
		w.Send(common, "y")
		w.Want(common, "y")
		_ = common.Close(w.Ctx)
	})
}

// Beyond MaxStreams an open waits for a stream to end, or makes another
// connection where there may be more.
func TestStreamsAreLimited(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 4}}
	overAll(t, so, &kernel.ClientOptions{Conns: 2}, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		var ss []*kernel.Stream
		for range 8 {
			s := w.Open("echo")
			w.Send(s, "x")
			w.Want(s, "x")
			ss = append(ss, s)
		}
		if n := len(w.Client.Conns()); n != 2 {
			t.Errorf("%d connections", n)
		}
		if _, err := ss[0].Conn().Open(w.Ctx, "echo", nil); !errors.Is(err, kernel.ErrTooManyStreams) {
			t.Errorf("a ninth on a connection: %v", err)
		}
		if err := w.OpenWithin(); !errors.Is(err, kernel.ErrTooManyStreams) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a ninth: %v", err)
		}
		var wg sync.WaitGroup
		for range 40 { // far more than there is room for, all of them in time
			wg.Go(func() {
				s, err := w.Client.Open(w.Ctx, "echo", nil)
				if err != nil {
					t.Error(err)
					return
				}
				w.Send(s, "y")
				w.Want(s, "y")
				_ = s.Close(w.Ctx)
			})
		}
		for _, s := range ss {
			_ = s.Close(w.Ctx)
		}
		wg.Wait()
	})
}

// Offers holds a bounded backlog; beyond it opens are refused at once.
func TestOffersAreBounded(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxOffers: 3}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		offers := w.Srv.Offers()
		var ss []*kernel.Stream
		for range 5 {
			ss = append(ss, w.Open("x"))
		}
		for _, s := range ss[3:] {
			_, _, err := s.Accepted(w.Ctx)
			if se := wantCode(t, err, status.ResourceExhausted); !se.NotProcessed {
				t.Errorf("%+v", se)
			}
		}
		if len(offers) != 3 {
			t.Errorf("%d wait", len(offers))
		}
		for range 3 {
			(<-offers).Reject(&status.HandlerError{Code: status.Cancelled})
		}
	})
}

// Connections beyond a limit are closed at once, and counted.
func TestConnectionsAreLimited(t *testing.T) {
	for name, lim := range map[string]kernel.Limits{
		"in all": {MaxConns: 2}, "of an address": {MaxConnsPerAddr: 2},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := loops(t, quietServer(&kernel.ServerOptions{Limits: lim}), nil)
			addr := srv.Addr().String()
			second, err := kernel.Dial(t.Context(), addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kernel.Dial(t.Context(), addr, nil); err == nil {
				t.Fatal("a third connection")
			}
			if n := srv.Stats().Refused; n != 1 {
				t.Errorf("%d refused", n)
			}
			_ = second.Close()
			eventually(t, "the second to be gone", func() bool { return srv.Stats().Conns == 1 })
			third, err := kernel.Dial(t.Context(), addr, nil)
			if err != nil {
				t.Fatalf("after one has gone: %v", err)
			}
			_ = third.Close()
		})
	}
}

// A lost connection is replaced by the next open; a stream never moves.
func TestTheClientConnectsAgain(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		for range 3 {
			s := w.Open("echo")
			w.Send(s, "x")
			w.Want(s, "x")
			w.Eventually("the last one to be gone", func() bool { return len(w.Srv.Conns()) == 1 })
			_ = w.Srv.Conns()[0].Close()
			w.WantErr(s, status.ConnectionLost)
			w.Call("echo", "again", "again")
		}
	})
}

// After Close nothing works, everything says so, and nothing hangs.
func TestAfterClose(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Loose = true
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		w.Send(s, "x")
		w.Want(s, "x")
		conn := w.Client.Conns()[0]
		if err := errors.Join(w.Client.Close(), w.Client.Close()); err != nil {
			t.Fatal(err)
		}
		w.WantErr(s, status.ConnectionLost)
		if _, err := w.Client.Open(w.Ctx, "x", nil); !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("Open: %v", err)
		}
		if _, err := w.Client.Open(w.Ctx, "x", &kernel.OpenOptions{Dedicated: true}); !errors.Is(err, kernel.ErrClosed) {
			t.Errorf("a dedicated Open: %v", err)
		}
		if _, err := conn.Open(w.Ctx, "x", nil); err == nil || conn.Err() == nil {
			t.Error("a stream on a closed connection")
		}
		if err := errors.Join(w.Srv.Close(), w.Srv.Close(), w.Srv.Shutdown(w.Ctx)); err != nil {
			t.Error(err)
		}
		if err := w.Srv.Serve(w.Ctx, listen(t)); !errors.Is(err, kernel.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
}

// A toy is a protocol of its own: a line, and then the native frames.
type toy struct{ native.Protocol }

const toyLine = "TOY/1\n"

func (toy) Name() string { return "toy" }

func (toy) Detect(first []byte) frame.Verdict {
	n := min(len(first), len(toyLine))
	switch {
	case string(first[:n]) != toyLine[:n]:
		return frame.No
	case n < len(toyLine):
		return frame.More
	}
	return frame.Yes
}

func (p toy) Handshake(ctx context.Context, rw io.ReadWriter, h *frame.Greeting) (frame.Session, error) {
	if h.Client {
		if _, err := io.WriteString(rw, toyLine); err != nil {
			return nil, err
		}
	} else {
		h.First = h.First[len(toyLine):]
	}
	return p.Protocol.Handshake(ctx, rw, h)
}

// One port serves several protocols, told apart by the first bytes, with the
// same handlers; a connection that speaks none of them is closed and counted.
func TestProtocolsShareAPort(t *testing.T) {
	so := &kernel.ServerOptions{Protocols: []frame.Protocol{native.Protocol{}, toy{}}}
	co := &kernel.ClientOptions{Protocols: []frame.Protocol{native.Protocol{}, toy{}}}
	srv, plain := loops(t, quietServer(so), co)
	srv.Handle("which", func(ctx context.Context, s *kernel.Stream) error {
		return s.Send(ctx, text("%s", s.Conn().Protocol()))
	})
	other, err := kernel.Dial(t.Context(), "toy://"+srv.Addr().String(), co)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	for c, want := range map[*kernel.Client]string{plain: "sluice", other: "toy"} {
		reply, err := c.Call(t.Context(), "which", pool.Message{}, nil)
		if err != nil || string(reply.Bytes()) != want {
			t.Errorf("%q, %v, want %s", reply.Bytes(), err, want)
		}
		reply.Release()
	}
	if _, err := kernel.Dial(t.Context(), "what://"+srv.Addr().String(), co); err == nil {
		t.Error("dialled an unknown protocol")
	}
	nc, err := net.Dial("tcp", srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\n\r\n")
	_, _ = io.ReadAll(nc)
	_ = nc.Close()
	eventually(t, "the connection of no known protocol to be counted", func() bool { return srv.Stats().UnknownProtocol == 1 })
}

// A time limit that was asked for holds also where the context has a later one.
func TestCallTimeoutBesideItsContext(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("never", func(ctx context.Context, _ *kernel.Stream) error {
			<-ctx.Done()
			return nil
		})
		m := text("x")
		defer m.Release()
		_, err := w.Client.Call(w.Ctx, "never", m, &kernel.CallOptions{Timeout: 10 * time.Millisecond})
		if !errors.Is(err, &status.StreamError{Code: status.DeadlineExceeded}) && !errors.Is(err, context.DeadlineExceeded) || w.Ctx.Err() != nil {
			t.Errorf("the call ended with %v", err)
		}
	})
}

// A context that ends behind its stream, as that of a caller who defers its cancel
// does, changes nothing: also where the peer's application has not seen the end yet.
func TestAContextThatEndsBehindItsStream(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		look := make(chan struct{})
		saw := make(chan error, 1)
		w.Srv.HandleOffer("late", func(ctx context.Context, o *kernel.Offer) error {
			s, err := o.Accept(pool.Message{}, nil)
			if err != nil {
				return err
			}
			_ = s.CloseSend()
			<-look
			for m, err := range s.All(ctx) {
				if err != nil {
					saw <- err
					return err
				}
				m.Release()
			}
			saw <- nil
			return nil
		})
		ctx, cancel := context.WithCancel(w.Ctx)
		s, err := w.Client.Open(ctx, "late", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Send(s, "x")
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		w.WantEOF(s)
		synctest.Wait() // what was sent is written
		cancel()
		synctest.Wait()
		if err := s.Err(); err != nil {
			t.Errorf("after the end: %v", err)
		}
		close(look)
		if err := <-saw; err != nil {
			t.Errorf("the peer: %v", err)
		}
		w.WantDone(s)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
	})
}

// Calls side by side, each with a context of its own that ends with it, and some
// that run out of time: one connection does for all.
func TestManyCallsSideBySide(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
			drain(s)
			<-ctx.Done()
			return ctx.Err()
		})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 400 {
					req := text("x")
					reply, err := w.Client.Call(w.Ctx, "echo", req, nil)
					if err != nil {
						req.Release()
						t.Errorf("call %d: %v", i, err)
						return
					}
					reply.Release()
					if i%3 > 0 {
						continue
					}
					ctx, cancel := context.WithCancel(w.Ctx)
					req = text("x")
					stop := time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
					_, err = w.Client.Call(ctx, "slow", req, nil)
					if req.Release(); !errors.Is(err, context.Canceled) {
						t.Errorf("call %d, cancelled: %v", i, err)
					}
					stop.Stop()
				}
			})
		}
		wg.Wait()
		w.Eventually("the connection to be counted", func() bool { return w.Srv.Stats().Accepted > 0 })
		if n := w.Srv.Stats().Accepted; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// The error of a call whose context ends wraps that context's error,
// whichever side finds out first, and its cause.
func TestCallsSayHowTheirContextEnded(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
			drain(s)
			<-ctx.Done()
			return ctx.Err()
		})
		for i := range 20 {
			ctx, cancel := context.WithTimeout(w.Ctx, time.Duration(i)*time.Millisecond)
			req := text("x")
			_, err := w.Client.Call(ctx, "slow", req, nil)
			if req.Release(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d ms: %v", i, err)
			}
			cancel()

			because := errors.New("enough")
			ctx, fail := context.WithCancelCause(w.Ctx)
			time.AfterFunc(time.Duration(i)*time.Millisecond, func() { fail(because) })
			req = text("x")
			_, err = w.Client.Call(ctx, "slow", req, nil)
			if req.Release(); !errors.Is(err, context.Canceled) && !errors.Is(err, because) {
				t.Errorf("after %d ms: %v", i, err)
			}
		}
	})
}

// What a handler says beside its status comes with the error.
func TestDetailsOfAStatus(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		details := metadata.MD{{Key: "retry-after", Value: "7"}}
		w.Srv.Handle("fails", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx) // without an end: on a protocol without half-close it would end both halves
			if err != nil {
				return err
			}
			m.Release()
			if err := s.SetTrailer(details); err != nil {
				return err
			}
			return &status.HandlerError{Code: status.Unavailable, Reason: "later"}
		})
		req := text("x")
		_, err := w.Client.Call(w.Ctx, "fails", req, nil)
		req.Release()
		if se := wantCode(t, err, status.Unavailable); se.Details.Get("retry-after") != "7" {
			t.Errorf("%+v", se)
		}
		s := w.Open("fails")
		w.Send(s, "x")
		if _, err := s.Receive(w.Ctx); w.caps.Status {
			if se := wantCode(t, err, status.Unavailable); se.Details.Get("retry-after") != "7" {
				t.Errorf("%+v", se)
			}
		}
		_ = s.Close(w.Ctx)
	})
}

// A handler's error brings details of its own, behind the trailer that was set. What can't
// be sent is left out, and the status is not.
func TestDetailsOfAnError(t *testing.T) {
	log := &journal{}
	overAll(t, &kernel.ServerOptions{Logger: log.Logger()}, nil, func(t *testing.T, w *world) {
		details := map[string]metadata.MD{
			"fine":    {{Key: "retry-after", Value: "7"}},
			"illegal": {{Key: "Retry After", Value: "7"}},
			"large":   {{Key: "retry-after", Value: strings.Repeat("7", 1<<20)}},
		}
		w.Srv.Handle("fails", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			defer m.Release()
			if err := s.SetTrailer(metadata.MD{{Key: "cost", Value: "1"}}); err != nil {
				return err
			}
			return &status.HandlerError{Code: status.Unavailable, Reason: "later", Details: details[string(m.Bytes())]}
		})
		for name, want := range map[string]string{"fine": "7", "illegal": "", "large": ""} {
			req := text("%s", name)
			_, err := w.Client.Call(w.Ctx, "fails", req, nil)
			req.Release()
			se := wantCode(t, err, status.Unavailable)
			if se.Details.Get("cost") != "1" || se.Details.Get("retry-after") != want || se.Reason != "later" {
				t.Errorf("%s: %+v", name, se)
			}
			if want == "" {
				w.Eventually(name+" to be logged", func() bool { return strings.Contains(log.String(), "details can't be sent") })
			}
		}
	})
}

// The header of a call's reply goes where the options say.
func TestTheHeaderOfACallsReply(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			if err := s.SetHeader(metadata.MD{{Key: "version", Value: "7"}}); err != nil {
				return err
			}
			return echo(ctx, s)
		})
		for name, c := range map[string]kernel.Caller{"client": w.Client, "connection": must[*kernel.Conn](t)(w.Client.Conn(w.Ctx))} {
			var header metadata.MD
			m := must[pool.Message](t)(c.Call(w.Ctx, "m", text("x"), &kernel.CallOptions{Header: &header}))
			if m.Release(); header.Get("version") != "7" {
				t.Errorf("%s: the header is %v", name, header)
			}
		}
	})
}
