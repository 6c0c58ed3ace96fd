package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// serving returns Handlers with one pattern.
func serving(pattern string, h kernel.Handler) *kernel.Handlers {
	var hs kernel.Handlers
	hs.Handle(pattern, h)
	return &hs
}

// saying answers with a text, whatever it is asked.
func saying(text string) kernel.Handler {
	return func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say(text)) }
}

// A registration that can't work is heard of at once, where it is made.
func TestRegistrationsPanic(t *testing.T) {
	nothing := func(kernel.Handler) kernel.Handler { return nil }
	none := func(kernel.OfferHandler) kernel.OfferHandler { return nil }
	offers := func(context.Context, *kernel.Offer) error { return nil }
	for name, c := range map[string]struct {
		register func(hs *kernel.Handlers)
		want     []string
	}{
		"no handler":               {func(hs *kernel.Handlers) { hs.Handle("m", nil) }, []string{`nil handler for "m"`}},
		"no offer handler":         {func(hs *kernel.Handlers) { hs.HandleOffer("m", nil) }, []string{`nil handler for "m"`}},
		"twice":                    {registerTwice, []string{`second handler for "m"`}},
		"twice, once for offers":   {func(hs *kernel.Handlers) { hs.Handle("a/", echo); hs.HandleOffer("a/", offers) }, []string{`second handler for "a/"`}},
		"a middleware without":     {func(hs *kernel.Handlers) { hs.Handle("m", echo); hs.Use(nothing) }, []string{`nil handler for "m"`}},
		"before its handler":       {func(hs *kernel.Handlers) { hs.Use(nothing); hs.Handle("m", echo) }, []string{`nil handler for "m"`}},
		"an offer middleware, too": {func(hs *kernel.Handlers) { hs.HandleOffer("m", offers); hs.UseOffer(none) }, []string{`nil handler for "m"`}},
		"before its offer handler": {func(hs *kernel.Handlers) { hs.UseOffer(none); hs.HandleOffer("m", offers) }, []string{`nil handler for "m"`}},
		"a nil middleware":         {func(hs *kernel.Handlers) { hs.Handle("m", echo); hs.Use(nil) }, []string{"nil pointer"}},
	} {
		got := panicOf(func() { c.register(&kernel.Handlers{}) })
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %s, want %s", name, got, w)
			}
		}
	}
}

func registerTwice(hs *kernel.Handlers) {
	hs.Handle("m", echo)
	hs.Handle("m", echo)
}

// The panic for a second handler names the lines of both registrations.
func TestTheSecondHandlerNamesBothPlaces(t *testing.T) {
	text := panicOf(func() { registerTwice(&kernel.Handlers{}) })
	at := regexp.MustCompile(`handlers_test\.go:(\d+)`).FindAllStringSubmatch(text, -1)
	if len(at) != 2 {
		t.Fatal(text)
	}
	second, _ := strconv.Atoi(at[0][1])
	first, _ := strconv.Atoi(at[1][1])
	if second != first+1 {
		t.Errorf("%s: the lines are not those of registerTwice", text)
	}
}

func panicOf(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return ""
}

// What a failed Use leaves is what was there before.
func TestUseThatPanicsChangesNothing(t *testing.T) {
	hs := serving("m", saying("plain"))
	_ = panicOf(func() {
		hs.Use(func(kernel.Handler) kernel.Handler { return saying("wrapped") }, func(kernel.Handler) kernel.Handler { panic("no") })
	})
	_, client := kerneltest.Start(t, &kernel.ServerOptions{Handlers: hs}, nil)
	wantReply(t, client, "m", "plain")
}

func wantReply(t *testing.T, c kernel.Caller, method, want string) {
	t.Helper()
	reply, err := c.Call(context.Background(), method, pool.Message{}, nil)
	if err != nil || string(reply.Bytes()) != want {
		t.Errorf("%s: %q, %v, want %q", method, reply.Bytes(), err, want)
	}
	reply.Release()
}

func wantUnimplemented(t *testing.T, c kernel.Caller, method string) {
	t.Helper()
	_, err := c.Call(context.Background(), method, pool.Message{}, nil)
	if !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		t.Errorf("%s: %v, want UNIMPLEMENTED", method, err)
	}
}

func TestPatterns(t *testing.T) {
	var hs kernel.Handlers
	for _, p := range []string{"a", "a/", "a/b", "a/b/", "x/y/", ""} {
		hs.Handle(p, saying(fmt.Sprintf("%q", p)))
	}
	_, client := kerneltest.Start(t, &kernel.ServerOptions{Handlers: &hs}, nil)
	cases := map[string]string{
		"a": "a", "a/": "a/", "a/b": "a/b", "a/b/": "a/b/", "a/b/c": "a/b/", "a/c": "a/", "a/bc": "a/", "a//": "a/",
		"b": "", "": "", "/": "", "x/": "", "x/y": "", "x/y/z": "x/y/", "x/y/z/w": "x/y/", "ab/c": "",
	}
	for method, want := range cases {
		wantReply(t, client, method, fmt.Sprintf("%q", want))
	}
	for p := "deep/"; len(p) < 50; p += "er/" {
		hs.Handle(p, saying(p))
	}
	for p := "deep/"; len(p) < 50; p += "er/" {
		wantReply(t, client, p+"x", p)
	}
	hs.Remove("a/b/")
	wantReply(t, client, "a/b/c", `"a/"`)
	hs.Remove("a/")
	wantReply(t, client, "a/b/c", `""`)
	hs.Remove("")
	hs.Remove("there is none")
	wantUnimplemented(t, client, "a/b/c")
	hs.Handle("a/", saying("again"))
	wantReply(t, client, "a/b/c", "again")
}

// One Handlers serves both sides of several connections.
func TestHandlersServeServersAndClients(t *testing.T) {
	hs := serving("who", saying("both"))
	conns := make(chan *kernel.Conn, 10)
	so := &kernel.ServerOptions{Handlers: hs, OnConn: func(c *kernel.Conn) { conns <- c }}
	overAll(t, so, &kernel.ClientOptions{Handlers: hs}, func(t *testing.T, w *world) {
		wantReply(t, w.Client, "who", "both")
		wantReply(t, testkit.Handled(w.World, conns), "who", "both")
	})
}

// A client can take what the server opens from a channel, as a server can.
func TestClientsOffers(t *testing.T) {
	var hs kernel.Handlers
	offers := hs.Offers()
	conns := make(chan *kernel.Conn, 10)
	so := &kernel.ServerOptions{OnConn: func(c *kernel.Conn) { conns <- c }}
	overAll(t, so, &kernel.ClientOptions{Handlers: &hs}, func(t *testing.T, w *world) {
		s, err := testkit.Handled(w.World, conns).Open(w.Ctx, "push", nil)
		if err != nil {
			t.Fatal(err)
		}
		o := testkit.Handled(w.World, offers)
		if o.Method() != "push" {
			t.Errorf("%s", o.Method())
		}
		b, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Finish(nil)
		if err := s.Close(w.Ctx); err != nil {
			t.Error(err)
		}
	})
}

// The first middleware is the outermost, for handlers of before and after.
func TestMiddlewareOrder(t *testing.T) {
	trace := make(chan string, 100)
	mw := func(name string) kernel.Middleware {
		return func(next kernel.Handler) kernel.Handler {
			return func(ctx context.Context, s *kernel.Stream) error {
				trace <- name
				defer func() { trace <- "/" + name }()
				return next(ctx, s)
			}
		}
	}
	handler := func(ctx context.Context, s *kernel.Stream) error {
		trace <- s.Method()
		return s.Send(ctx, say("ok"))
	}
	var hs kernel.Handlers
	hs.Use(mw("1"))
	hs.Handle("before", handler)
	hs.Use(mw("2"), mw("3"))
	hs.Handle("after", handler)
	hs.HandleOffer("offer", func(_ context.Context, o *kernel.Offer) error { // has no middleware of streams
		o.Reject(&status.HandlerError{Code: status.Aborted, Reason: "as the test wants"})
		return nil
	})
	_, client := kerneltest.Start(t, &kernel.ServerOptions{Handlers: &hs}, nil)
	for _, method := range []string{"before", "after"} {
		wantReply(t, client, method, "ok")
		for _, want := range []string{"1", "2", "3", method, "/3", "/2", "/1"} {
			if got := <-trace; got != want {
				t.Fatalf("%s: %s, want %s", method, got, want)
			}
		}
	}
	if _, err := client.Call(context.Background(), "offer", pool.Message{}, nil); !errors.Is(err, kernel.ErrRefused) {
		t.Errorf("%v, want a refusal", err)
	}
	if len(trace) > 0 {
		t.Errorf("%s has seen an offer", <-trace)
	}
}

// A middleware sees what is known before the acceptance, and how the stream ended.
func TestMiddlewareSeesTheStream(t *testing.T) {
	type seen struct {
		method, key string
		identity    kernel.Identity
		peer        bool
		deadline    bool
	}
	sees := make(chan seen, 1)
	returns, ends := make(chan error, 1), make(chan error, 1)
	var hs kernel.Handlers
	hs.Handle("waits", func(ctx context.Context, s *kernel.Stream) error {
		_, err := s.Receive(ctx)
		return err
	})
	hs.Use(func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			_, deadline := ctx.Deadline()
			sees <- seen{s.Method(), s.Metadata().Get("k"), s.Conn().Identity(), s.Conn().Peer().Addr != nil, deadline}
			err := next(ctx, s)
			returns <- err
			go func() {
				<-s.Done()
				ends <- s.Err()
			}()
			return err
		}
	})
	so := &kernel.ServerOptions{Handlers: &hs, Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) { return "me", nil }}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		ctx, cancel := context.WithTimeout(w.Ctx, time.Hour)
		defer cancel()
		s, err := w.Client.Open(ctx, "waits", &kernel.OpenOptions{Metadata: metadata.MD{{Key: "k", Value: "v"}}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := testkit.Handled(w.World, sees), (seen{"waits", "v", "me", true, true}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if _, _, err := s.Accepted(w.Ctx); err != nil {
			t.Fatal(err)
		}
		s.Abort(status.DataLoss, "as the test wants")
		want := &status.StreamError{Code: w.told(status.DataLoss)}
		if err := testkit.Handled(w.World, returns); !errors.Is(err, want) {
			t.Errorf("the handler's return: %v", err)
		}
		if err := testkit.Handled(w.World, ends); !errors.Is(err, want) {
			t.Errorf("the stream's end: %v", err)
		}
	})
}

// What fails before its first use of the stream refuses it, and what was set for an
// acceptance and an end travels with the refusal. A handler that has asked for the request
// has begun to serve the stream, which ends with the error where an end can say that.
func TestErrorsBeforeTheFirstUse(t *testing.T) {
	denied := &status.HandlerError{Code: status.PermissionDenied, Reason: "not you"}
	md := metadata.MD{{Key: "k", Value: "v"}}
	for name, c := range map[string]struct {
		h       kernel.Handler
		refused bool
		details string
	}{
		"at once":        {h: func(context.Context, *kernel.Stream) error { return denied }, refused: true},
		"after a look":   {h: func(_ context.Context, s *kernel.Stream) error { _ = s.Metadata(); return denied }, refused: true},
		"after a header": {h: func(_ context.Context, s *kernel.Stream) error { return errors.Join(s.SetHeader(md), denied) }, refused: true, details: "v"},
		"with details": {h: func(context.Context, *kernel.Stream) error {
			return &status.HandlerError{Code: denied.Code, Reason: denied.Reason, Details: md}
		}, refused: true, details: "v"},
		"with a trailer": {h: func(_ context.Context, s *kernel.Stream) error {
			if s.SetTrailer(md) != nil { // where ends carry none
				return &status.HandlerError{Code: denied.Code, Reason: denied.Reason, Details: md}
			}
			return denied
		}, refused: true, details: "v"},
		"after the request": {h: func(ctx context.Context, s *kernel.Stream) error {
			testkit.RequestOf(t, s).Release()
			return denied
		}},
		"after use": {h: func(_ context.Context, s *kernel.Stream) error { s.CloseReceive(status.OK); return denied }},
	} {
		t.Run(name, func(t *testing.T) {
			overAll(t, &kernel.ServerOptions{Handlers: serving("", c.h)}, nil, func(t *testing.T, w *world) {
				s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Request: say("please")})
				if err != nil {
					t.Fatal(err)
				}
				refused := c.refused || name == "after the request" && !w.caps.Status
				_, _, err = s.Accepted(w.Ctx)
				if got := errors.Is(err, kernel.ErrRefused); got != refused {
					t.Errorf("accepted: %v", err)
				}
				code := w.answered(denied.Code)
				if !refused {
					code = w.told(denied.Code)
				}
				var se *status.StreamError
				if _, err := s.Receive(w.Ctx); !errors.As(err, &se) || se.Code != code || se.NotProcessed {
					t.Fatalf("%v, want what the handler returned", err)
				}
				if se.Details.Get("k") != c.details || s.Trailer().Get("k") != c.details {
					t.Errorf("details %v, trailer %v, want %q", se.Details, s.Trailer(), c.details)
				}
				s.Abort(status.Cancelled, "the test is over")
			})
		})
	}
}

// What middleware puts into the header travels with what the handler does.
func TestHeadersAddUp(t *testing.T) {
	hs := serving("m", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.SetHeader(metadata.MD{{Key: "b", Value: "2"}}); err != nil {
			return err
		}
		return s.Send(ctx, say("ok"))
	})
	hs.Use(func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if err := s.SetHeader(metadata.MD{{Key: "a", Value: "1"}}); err != nil {
				return err
			}
			return next(ctx, s)
		}
	})
	overAll(t, &kernel.ServerOptions{Handlers: hs}, nil, func(t *testing.T, w *world) {
		var header metadata.MD
		reply, err := w.Client.Call(w.Ctx, "m", say("x"), &kernel.CallOptions{Header: &header})
		ok(t, err)
		reply.Release()
		if header.Get("a") != "1" || header.Get("b") != "2" {
			t.Errorf("%v", header)
		}
	})
}

// A handler can take the offer of its stream, and answer it as an OfferHandler does.
func TestStreamOffer(t *testing.T) {
	leftOpen := make(chan *kernel.Stream, 1)
	var hs kernel.Handlers
	hs.Handle("accepts", func(_ context.Context, s *kernel.Stream) error {
		o := s.Offer()
		if s.Offer() != nil {
			t.Error("the offer can be taken twice")
		}
		m := testkit.RequestOf(t, o)
		if m.Len() != 1 {
			t.Errorf("request of %d bytes", m.Len())
		}
		m.Release()
		b, err := o.Accept(say("reply"), nil)
		leftOpen <- b
		return err
	})
	hs.Handle("rejects", func(_ context.Context, s *kernel.Stream) error {
		s.Offer().Reject(&status.HandlerError{Code: status.NotFound, Reason: "there is none"})
		return nil
	})
	hs.Handle("forgets", func(_ context.Context, s *kernel.Stream) error { s.Offer(); return nil })
	hs.Handle("too late", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.Send(ctx, say("x")); err != nil {
			return err
		}
		if s.Offer() != nil {
			t.Error("an offer of an accepted stream")
		}
		return nil
	})
	overAll(t, &kernel.ServerOptions{Handlers: &hs}, nil, func(t *testing.T, w *world) {
		s, err := w.Client.Open(w.Ctx, "accepts", &kernel.OpenOptions{Request: say("r")})
		if err != nil {
			t.Fatal(err)
		}
		reply, _, err := s.Accepted(w.Ctx)
		if err != nil || string(reply.Bytes()) != "reply" {
			t.Errorf("%q, %v", reply.Bytes(), err)
		}
		reply.Release()
		b := testkit.Handled(w.World, leftOpen)
		if err := b.Send(b.Context(), say("later")); err != nil { // its context is valid after the return
			t.Error(err)
		}
		if m, err := s.Receive(w.Ctx); err != nil || string(m.Bytes()) != "later" {
			t.Errorf("%q, %v", m.Bytes(), err)
		} else {
			m.Release()
		}
		b.Finish(nil)
		if err := s.Close(w.Ctx); err != nil {
			t.Error(err)
		}
		for method, code := range map[string]status.Code{"rejects": status.NotFound, "forgets": status.FailedPrecondition} {
			s, err := w.Client.Open(w.Ctx, method, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Accepted(w.Ctx)
			if !errors.Is(err, kernel.ErrRefused) || !errors.Is(err, &status.StreamError{Code: w.answered(code)}) {
				t.Errorf("%s: %v", method, err)
			}
		}
		wantReply(t, w.Client, "too late", "x")
	})
}
