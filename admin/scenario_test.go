package admin_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// hostile is a method's name that a peer has chosen: it would end an element, run a script, turn
// the direction of writing, and colour a terminal.
const hostile = "</td><script>document.title='stolen'</script>\u202e\x1b[31m\"'&"

const token = "a token of enough bytes"

// A scenario is a server over TCP with streams in every state, and its pages.
type scenario struct {
	t     testing.TB
	pages *admin.Handler
	srv   *kernel.Server
	url   string // of the pages
	http  http.Client
	dial  func() *kernel.Client
	ctx   context.Context // ends with the test
	wg    sync.WaitGroup
}

// newScenario serves methods: "echo"; "shop.Orders/Watch", which never reads; "idle", which has
// no handler; "fail"; and the hostile one, which waits.
func newScenario(t testing.TB, o *admin.Options, idle int) *scenario {
	t.Helper()
	s := &scenario{t: t, http: http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(context.Background())
	quiet := slog.New(slog.DiscardHandler)
	if o == nil {
		o = &admin.Options{}
	}
	o.Logger = quiet
	var err error
	if s.pages, err = admin.NewHandler(o); err != nil {
		t.Fatal(err)
	}
	lim := kernel.Limits{MaxStreams: idle + 1000, MaxTotalStreams: 4*idle + 4000, MaxOffers: idle + 1000}
	if s.srv, err = kernel.NewServer(&kernel.ServerOptions{Observer: s.pages, Logger: quiet, Limits: lim}); err != nil {
		t.Fatal(err)
	}
	s.srv.Handle("echo", testkit.Echo)
	wait := func(ctx context.Context, st *kernel.Stream) error { <-ctx.Done(); return nil }
	s.srv.Handle("shop.Orders/Watch", func(ctx context.Context, st *kernel.Stream) error {
		if _, err := st.Receive(ctx); err != nil {
			return err
		}
		return wait(ctx, st)
	})
	s.srv.Handle(hostile, wait)
	s.srv.Handle("fail", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.NotFound, Reason: "no such order"}
	})
	s.srv.HandleOffer("idle", func(_ context.Context, o *kernel.Offer) error {
		_, err := o.Accept(pool.Message{}, nil)
		return err
	})
	s.pages.AddServer("shop", s.srv)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() { _ = s.srv.Serve(context.Background(), ln) })
	s.dial = func() *kernel.Client {
		c, err := kernel.Dial(context.Background(), ln.Addr().String(), &kernel.ClientOptions{Logger: quiet, Limits: lim})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	web, err := admin.Listen(context.Background(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + web.Addr().String()
	s.wg.Go(func() { _ = s.pages.Serve(s.ctx, web) })
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		cancel()
		_ = s.srv.Close()
		s.wg.Wait()
	})
	return s
}

// open opens a stream that is accepted.
func (s *scenario) open(c *kernel.Client, method string) *kernel.Stream {
	s.t.Helper()
	st, err := c.Open(context.Background(), method, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// idle opens streams on which nothing happens.
func (s *scenario) idle(c *kernel.Client, n int) {
	s.t.Helper()
	var last *kernel.Stream
	for range n {
		last = s.open(c, "idle")
	}
	if _, _, err := last.Accepted(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// stuck opens a stream whose handler does not read, and fills it.
func (s *scenario) stuck(c *kernel.Client) *kernel.Stream {
	s.t.Helper()
	st := s.open(c, "shop.Orders/Watch")
	s.wg.Go(func() {
		for {
			m := pool.New(4 << 10)
			if err := st.Send(s.ctx, m); err != nil {
				m.Release()
				return
			}
		}
	})
	return st
}

// traffic echoes messages on n streams, and has calls fail, until the test ends.
func (s *scenario) traffic(c *kernel.Client, n int) {
	s.t.Helper()
	for i := range n {
		st := s.open(c, "echo")
		s.wg.Go(func() {
			tick := time.NewTicker(time.Duration(i+2) * time.Millisecond)
			defer tick.Stop()
			for s.ctx.Err() == nil {
				if st.Send(s.ctx, pool.MessageOf(make([]byte, 100+200*i))) != nil {
					return
				}
				m, err := st.Receive(s.ctx)
				m.Release()
				if err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-s.ctx.Done():
				}
			}
		})
	}
	s.wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, method := range []string{"fail", "no such method"} {
				m, _ := c.Call(s.ctx, method, pool.Message{}, nil)
				m.Release()
			}
			select {
			case <-tick.C:
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// failure waits until a stream has failed and the pages know it.
func (s *scenario) failure() {
	s.t.Helper()
	testkit.Eventually(s.t, "a failed stream to be known", func() bool {
		return s.get("/closed?format=json&q=fail").contains("NOT_FOUND")
	})
}

// An answer is one of the pages'.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (a answer) contains(s string) bool { return strings.Contains(a.body, s) }

// get asks for a path with headers, each "Name: value".
func (s *scenario) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.ask(http.MethodGet, path, "", headers...)
}

func (s *scenario) ask(method, path, form string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.ctx, method, s.url+path, strings.NewReader(form))
	if err != nil {
		s.t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}
