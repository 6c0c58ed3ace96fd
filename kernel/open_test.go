package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Data may follow the open before there is an answer, and keeps its order: with
// itself, with the request, and with the reply and what follows that.
func TestDataRightBehindTheOpen(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		s, err := w.Client.Open(w.Ctx, "slow", nil)
		if err == nil {
			_, _, err = s.Accepted(w.Ctx)
		}
		wantCode(t, err, status.Unimplemented) // Offers was not called yet
		w.AskOffers()
		s, err = w.Client.Open(w.Ctx, "slow", &kernel.OpenOptions{Request: text("request")})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			w.Send(s, "%d", i)
		}
		half := w.half(s)
		o := w.Offer()
		m := testkit.RequestOf(t, o)
		if got := string(m.Bytes()); got != "request" || o.Method() != "slow" {
			t.Fatalf("%s with %q", o.Method(), got)
		}
		m.Release()
		b, err := o.Accept(text("reply"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			w.Send(b, "back %d", i)
		}
		if half {
			w.endSend(b)
		}
		for i := range 50 {
			w.Want(b, "%d", i)
		}
		if half {
			w.WantEOF(b)
		} else {
			w.endSend(b)
		}
		for i := range 50 {
			w.Want(s, "back %d", i)
		}
		w.WantEOF(s)
		reply, _, err := s.Accepted(w.Ctx)
		if err != nil || string(reply.Bytes()) != "reply" {
			t.Fatalf("%q, %v", reply.Bytes(), err)
		}
		reply.Release()
	})
}

// A refused open fails the stream and every wait on it, and says whether a handler has
// seen it. What was sent behind it is released.
func TestARefusedOpen(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.HandleOffer("no", func(_ context.Context, o *kernel.Offer) error {
			o.Reject(&status.HandlerError{Code: status.NotFound, Reason: "not here"})
			return nil
		})
		w.Srv.HandleOffer("forgets", func(context.Context, *kernel.Offer) error { return nil })
		w.Srv.HandleOffer("fails", func(context.Context, *kernel.Offer) error {
			return &status.HandlerError{Code: status.Aborted, Reason: "no"}
		})
		for _, c := range []struct {
			method       string
			code         status.Code
			notProcessed bool
		}{
			{"no", status.NotFound, false},
			{"forgets", status.FailedPrecondition, false},
			{"fails", status.Aborted, false},
			{"unknown", status.Unimplemented, true},
		} {
			s, err := w.Client.Open(w.Ctx, c.method, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				m := sized(1000, 1)
				if s.Send(w.Ctx, m) != nil {
					m.Release()
				}
			}
			_, _, err = s.Accepted(w.Ctx)
			se := wantCode(t, err, c.code)
			if !errors.Is(err, kernel.ErrRefused) || !se.Refused || !se.Remote || se.NotProcessed != c.notProcessed {
				t.Errorf("%s: %+v", c.method, se)
			}
			m := text("x")
			for what, err := range map[string]error{
				"Send": s.Send(w.Ctx, m), "TrySend": s.TrySend(m), "Err": s.Err(), "Close": s.Close(w.Ctx),
			} {
				if !errors.Is(err, kernel.ErrRefused) {
					t.Errorf("%s: %s gives %v", c.method, what, err)
				}
			}
			m.Release()
			w.WantErr(s, c.code)
			wantClosed(t, "In", s.In())
			wantClosed(t, "Done", s.Done())
			wantClosed(t, "Writable", s.Writable())
		}
	})
}

// An offer is answered once.
func TestAnOfferIsAnsweredOnce(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		s, err := w.Client.Open(w.Ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		o := w.Offer()
		b, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Accept(pool.Message{}, nil); !errors.Is(err, kernel.ErrAnswered) {
			t.Errorf("a second Accept: %v", err)
		}
		o.Reject(&status.HandlerError{Code: status.NotFound, Reason: "too late"})
		w.Send(s, "x")
		w.Want(b, "x")
		w.Cleanup(s, b)
	})
}

// The answer to a request that opens several streams comes on the first: resetting that
// before the answer resets all of them, on both sides.
func TestCancelingTheFirstOfSeveral(t *testing.T) {
	inBubble(t, nil, &kernel.ClientOptions{}, func(t *testing.T, w *world) {
		offers := w.Srv.Offers()
		ss, err := w.Client.OpenN(w.Ctx, "x", nil, make([]kernel.StreamOptions, 3)...)
		if err != nil {
			t.Fatal(err)
		}
		o := <-offers
		ss[0].Abort(status.Aborted, "changed my mind")
		_, _ = o.AcceptAll(pool.Message{}, nil) // crosses it, or comes after it
		w.Quiesce()
		for i, s := range ss {
			if _, _, err := s.Accepted(w.Ctx); err == nil {
				t.Errorf("stream %d was accepted", i)
			}
		}
		if ss, err = w.Client.OpenN(w.Ctx, "x", nil, make([]kernel.StreamOptions, 3)...); err != nil {
			t.Fatal(err)
		}
		o = <-offers
		ss[0].Abort(status.Aborted, "changed my mind") // first
		w.Quiesce()
		if _, err = o.AcceptAll(pool.Message{}, nil); err == nil {
			t.Error("streams were accepted that nobody wants")
		}
		w.Settle()
	})
}

// A peer that resets only the first stream of a group before the answer ends the others
// too, however the group is served.
func TestHostileResetOfAGroupsFirstStream(t *testing.T) {
	for name, serve := range map[string]func(tg *target){
		"a handler": func(tg *target) {
			tg.Srv.Handle("group", func(ctx context.Context, s *kernel.Stream) error {
				time.Sleep(time.Second)
				return nil
			})
		},
		"offers": func(tg *target) {
			offers := tg.Srv.Offers()
			go func() {
				o := <-offers
				time.Sleep(time.Second)
				_, _ = o.AcceptAll(pool.Message{}, nil)
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{})
				serve(tg)
				r := tg.attack(hello())
				id := r.group("group", 3)
				r.say(frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Cancelled})
				time.Sleep(2 * time.Second)
				synctest.Wait()
				n := 0
				for _, c := range tg.Srv.Conns() {
					n += c.Streams()
				}
				if n > 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A peer that resets the stream before the answer leaves nothing behind, and a later
// Accept fails.
func TestACanceledOffer(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		s, err := w.Client.Open(w.Ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Send(s, "data")
		o := w.Offer()
		s.Abort(status.Aborted, "changed my mind")
		if _, _, err := s.Accepted(w.Ctx); err == nil {
			t.Error("an aborted stream was accepted")
		}
		w.Eventually("the end of the stream", func() bool { return w.Srv.Conns()[0].Streams() == 0 })
		_, err = o.Accept(pool.Message{}, &kernel.StreamOptions{Window: 1 << 20})
		wantCode(t, err, status.Aborted)
		w.Settle()
		w.Loose = true // the data's message can't be received any more
		releaseOf(o)
	})
}

// releaseOf releases what an offer that was not accepted holds, through its stream.
func releaseOf(o *kernel.Offer) {
	s := o.Stream(0)
	drain(s)
}

// Requests and replies of any size travel, those beyond 16 KiB as the stream's
// first message; the data behind them keeps its order.
func TestLargeRequestsAndReplies(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, 100_000, 4 << 20} {
			w.Srv.Remove("big")
			w.Srv.HandleOffer("big", func(ctx context.Context, o *kernel.Offer) error {
				s, err := o.Accept(testkit.RequestOf(t, o), nil)
				if err != nil {
					return err
				}
				for m, err := range s.All(ctx) {
					if err != nil {
						return err
					}
					if err := s.Send(ctx, m); err != nil {
						return err
					}
				}
				return s.CloseSend()
			})
			s, err := w.Client.Open(w.Ctx, "big", &kernel.OpenOptions{Request: sized(n, 9)})
			if err != nil {
				t.Fatal(err)
			}
			w.Send(s, "right behind")
			half := w.half(s)
			reply, _, err := s.Accepted(w.Ctx)
			if err != nil || !bytes.Equal(reply.Bytes(), bytes.Repeat([]byte{9}, n)) {
				t.Fatalf("%d bytes: a reply of %d, %v", n, reply.Len(), err)
			}
			reply.Release()
			w.Want(s, "right behind")
			if half {
				w.WantEOF(s)
			} else {
				w.endSend(s)
			}
			w.WantDone(s)
		}
	})
}

// Several streams are opened by one request and accepted together; each is its
// own from then on.
func TestSeveralStreamsByOneRequest(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		const n = 5
		each := make([]kernel.StreamOptions, n)
		as, err := w.Client.OpenN(w.Ctx, "many", &kernel.OpenOptions{Request: sized(20_000, 1)}, each...)
		if err != nil || len(as) != n {
			t.Fatal(len(as), err)
		}
		for i, a := range as { // before there is an answer
			w.Send(a, "to %d", i)
		}
		o := w.Offer()
		m := testkit.RequestOf(t, o)
		if o.Streams() != n || m.Len() != 20_000 {
			t.Fatalf("%d streams, a request of %d bytes", o.Streams(), m.Len())
		}
		m.Release()
		bs, err := o.AcceptAll(sized(20_000, 2), nil)
		if err != nil || len(bs) != n {
			t.Fatal(len(bs), err)
		}
		for i, a := range as {
			reply, _, err := a.Accepted(w.Ctx)
			if err != nil || (reply.Len() == 20_000) != (i == 0) {
				t.Errorf("stream %d: a reply of %d bytes, %v", i, reply.Len(), err)
			}
			reply.Release()
			w.Want(bs[i], "to %d", i)
			w.Send(bs[i], "from %d", i)
			w.Want(a, "from %d", i)
		}
		as[0].Abort(status.Aborted, "")
		w.WantErr(bs[0], status.Aborted)
		w.Send(as[1], "the others live on")
		w.Want(bs[1], "the others live on")
		w.Cleanup(append(as, bs...)...)
	})
}

// Each stream of a request has options of its own.
func TestOneOfAGroupIsWriteOnly(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		as, err := w.Client.OpenN(w.Ctx, "many", nil, kernel.StreamOptions{}, kernel.StreamOptions{NoReceive: true})
		if err != nil {
			t.Fatal(err)
		}
		bs, err := w.Offer().AcceptAll(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Send(bs[0], "x")
		w.Want(as[0], "x")
		m := text("x")
		if err := bs[1].Send(w.Ctx, m); !errors.Is(err, kernel.ErrNotReadable) {
			t.Errorf("the write-only one: %v", err)
		}
		m.Release()
		w.Send(as[1], "y")
		w.Want(bs[1], "y")
		w.Cleanup(append(as, bs...)...)
	})
}

// What is not accepted of a group is refused, all of it if the offer is.
func TestPartOfAGroup(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		as, err := w.Client.OpenN(w.Ctx, "many", nil, make([]kernel.StreamOptions, 3)...)
		if err != nil {
			t.Fatal(err)
		}
		if as[1].Trailer() != nil {
			t.Error("a trailer before the end")
		}
		for _, a := range as {
			w.Send(a, "x")
		}
		b, err := w.Offer().Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Want(b, "x")
		if _, _, err := as[0].Accepted(w.Ctx); err != nil {
			t.Error(err)
		}
		for _, a := range as[1:] {
			_, _, err := a.Accepted(w.Ctx)
			if !w.caps.Status && errors.Is(err, &status.StreamError{Code: status.Aborted}) {
				continue // an end has told it
			}
			if se := wantCode(t, err, status.FailedPrecondition); !se.NotProcessed || !se.Refused {
				t.Errorf("%+v", se)
			}
		}
		w.Cleanup(as[0], b)

		as, err = w.Client.OpenN(w.Ctx, "many", nil, make([]kernel.StreamOptions, 3)...)
		if err != nil {
			t.Fatal(err)
		}
		w.Offer().Reject(&status.HandlerError{Code: status.NotFound})
		for _, a := range as {
			_, _, err := a.Accepted(w.Ctx)
			wantCode(t, err, status.NotFound)
		}
	})
}

// A handler's stream is accepted by its first use or by its return, and header
// and trailer go with that.
func TestHeaderAndTrailer(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		md := metadata.MD{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}, {Key: "b", Value: "\x00\xff"}}
		if w.caps.TextValues {
			if _, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Metadata: md}); !errors.Is(err, kernel.ErrMetadataKey) {
				t.Errorf("a value that is no text: %v", err)
			}
			md = append(md[:2:2], metadata.Field{Key: "b", Value: "3"}, metadata.Field{Key: "c-bin", Value: "\x00\xff"})
		}
		early := make(chan error, 2)
		w.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			got := s.Metadata()
			if !slices.Equal(got, md) {
				t.Errorf("metadata %v", got)
			}
			if len(got.Values("b")) != 2 || got.Get("a") != "1" || got.Get("nothing") != "" {
				t.Errorf("metadata %v", got)
			}
			early <- s.SetHeader(metadata.MD{{Key: "h", Value: "1"}})
			if err := s.SetTrailer(metadata.MD{{Key: "t", Value: "2"}}); (err == nil) != w.caps.Status ||
				err != nil && !errors.Is(err, kernel.ErrNotSupported) {
				t.Errorf("SetTrailer: %v", err)
			}
			if err := s.Send(ctx, text("x")); err != nil {
				return err
			}
			early <- s.SetHeader(nil)
			return nil
		})
		s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Metadata: md})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetHeader(nil); !errors.Is(err, kernel.ErrHeaderSent) {
			t.Errorf("SetHeader on the opener's side: %v", err)
		}
		_, header, err := s.Accepted(w.Ctx)
		if err != nil || header.Get("h") != "1" {
			t.Errorf("header %v, %v", header, err)
		}
		w.Want(s, "x")
		w.WantEOF(s)
		if w.caps.Status && s.Trailer().Get("t") != "2" {
			t.Errorf("trailer %v", s.Trailer())
		}
		if err := testkit.Handled(w.World, early); err != nil {
			t.Errorf("the first SetHeader: %v", err)
		}
		if err := testkit.Handled(w.World, early); !errors.Is(err, kernel.ErrHeaderSent) {
			t.Errorf("SetHeader after the acceptance: %v", err)
		}
		_ = s.Close(w.Ctx)
	})
}

func TestMetadataHasALimit(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxMetadata: 1000, MaxKeys: 3}}
	overAll(t, so, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		big := metadata.MD{{Key: "k", Value: string(make([]byte, 1000))}}
		refused := func(md metadata.MD) {
			s, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Metadata: md})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Accepted(w.Ctx)
			if se := wantCode(t, err, status.TooLarge); se.NotProcessed != w.notProcessed(status.TooLarge) {
				t.Errorf("%+v", se)
			}
		}
		if !w.limitsAreTold() {
			refused(big)
		} else if _, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Metadata: big}); !errors.Is(err, kernel.ErrMetadataTooLarge) {
			t.Errorf("too much: %v", err)
		}
		bad := metadata.MD{{Key: "Upper", Value: "x"}}
		if _, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Metadata: bad}); !errors.Is(err, kernel.ErrMetadataKey) {
			t.Errorf("an illegal key: %v", err)
		}
		refused(metadata.MD{{Key: "a"}, {Key: "a"}, {Key: "a"}, {Key: "a"}})
	})
}

// A stream's context carries the values of what it was opened with, ends with
// the stream, and tells why.
func TestContexts(t *testing.T) {
	type key struct{}
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		ended := make(chan error, 1)
		w.Srv.Handle("ctx", func(ctx context.Context, s *kernel.Stream) error {
			sub, cancel := context.WithCancel(ctx)
			defer cancel()
			if kernel.FromContext(sub) != s || ctx.Err() != nil {
				t.Error("the handler's context is not the stream's")
			}
			if err := s.Send(ctx, text("here")); err != nil {
				return err
			}
			<-ctx.Done()
			ended <- s.Err()
			return ctx.Err()
		})
		ctx, cancel := context.WithCancelCause(context.WithValue(w.Ctx, key{}, "v"))
		s, err := w.Client.Open(ctx, "ctx", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Want(s, "here")
		if s.Context().Value(key{}) != "v" || kernel.FromContext(s.Context()) != s || s.Context().Err() != nil {
			t.Error("the opener's context")
		}
		cancel(errors.New("no more of it"))
		se := w.WantErr(s, status.Cancelled)
		if se.Reason != "no more of it" || se.Remote {
			t.Errorf("%+v", se)
		}
		wantClosed(t, "the context's Done", s.Context().Done())
		if err := s.Context().Err(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		se = wantCode(t, testkit.Handled(w.World, ended), w.told(status.Cancelled))
		if !se.Remote || w.caps.Status && !w.caps.AnswerStatus && se.Reason != "no more of it" {
			t.Errorf("the server was told %+v", se)
		}
		if kernel.FromContext(context.Background()) != nil {
			t.Error("a stream out of nothing")
		}
		cancelled, stop := context.WithCancel(w.Ctx)
		stop()
		if _, err := w.Client.Open(cancelled, "ctx", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("an open whose context has ended: %v", err)
		}
	})
}

// A deadline travels as time left and ends the stream on both sides.
func TestDeadlinesTravelAsTimeLeft(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		type seen struct {
			left, ended time.Duration
			err, ctx    error
		}
		c := make(chan seen, 1)
		w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
			start := time.Now()
			d, ok := ctx.Deadline()
			if !ok {
				t.Error("no deadline")
			}
			<-ctx.Done()
			c <- seen{d.Sub(start), time.Since(start), s.Err(), ctx.Err()}
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(w.Ctx, 7*time.Second)
		defer cancel()
		s, err := w.Client.Open(ctx, "slow", nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.WantErr(s, status.DeadlineExceeded)
		if d := time.Since(start); d != 7*time.Second || !errors.Is(s.Context().Err(), context.DeadlineExceeded) {
			t.Errorf("ended after %v, %v", d, s.Context().Err())
		}
		got := testkit.Handled(w.World, c)
		if got.left != 7*time.Second || got.ended != 7*time.Second || !errors.Is(got.ctx, context.DeadlineExceeded) {
			t.Errorf("the server saw %+v", got)
		}
		wantCode(t, got.err, status.DeadlineExceeded)
	})
}

// A server ends a stream at its deadline, whether or not its client says so.
func TestDeadlinesEndTheStreamsOfSilentClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		r := tg.attack(hello())
		f := openFrame(1, "stuck")
		f.Deadline = 7 * time.Second
		r.say(f)
		time.Sleep(7*time.Second - time.Millisecond)
		synctest.Wait()
		if h, ok := r.find(frame.Reset, 1); ok {
			t.Fatalf("ended before its deadline: %+v", h)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if h, ok := r.find(frame.Reset, 1); !ok || h.code != status.DeadlineExceeded {
			t.Fatalf("not ended at its deadline: %s", r.tail())
		}
	})
}

// A cancelled context aborts; what has arrived can be taken.
func TestCancelKeepsWhatArrived(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.AskOffers()
		ctx, cancel := context.WithCancel(w.Ctx)
		a, err := w.Client.Open(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.Offer().Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Send(b, "arrived")
		w.Quiesce()
		cancel()
		w.Quiesce()
		w.Want(a, "arrived")
		w.WantErr(a, status.Cancelled)
		w.WantErr(b, status.Cancelled)
	})
}

// A deadline that has passed when an open arrives ends its stream, and nothing else: the timer
// runs beside the reader that is still putting the open's request down.
func TestDeadlinesThatHavePassedOnArrival(t *testing.T) {
	tg := newTarget(t, false, kernel.ServerOptions{})
	r := tg.attack(hello())
	for range 200 {
		var b []byte
		for range 20 {
			f := openFrame(r.next, "echo")
			f.Deadline = time.Microsecond
			f.Payload = []byte("a request")
			b = append(b, wire(&f)...)
			r.next += 2
		}
		if err := r.write(b); err != nil {
			t.Fatalf("%v: %v", err, r.tail())
		}
		time.Sleep(time.Millisecond)
	}
	r.echoes()
}
