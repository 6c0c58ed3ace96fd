package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Over brpc against peers that are made by hand, as brpc's own behave, and as they
// do when something is lost.

// inBrpcTarget runs f with a hand-made client of a server in memory.
func inBrpcTarget(t *testing.T, so kernel.ServerOptions, f func(tg *target, p *brpcPeer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tg := brpcTarget(t, true, so)
		p := tg.brpcAttack()
		f(tg, p)
		_ = p.nc.Close()
	})
}

// The answer to an open comes in a data frame of the stream, whether it establishes
// it or not; to a call it is plain.
func TestBrpcAnswersAsBrpcsServersDo(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		accepted := make(chan *kernel.Stream, 3)
		tg.Srv.HandleOffer("lab.Service/No", func(_ context.Context, o *kernel.Offer) error {
			o.Reject(&status.HandlerError{Code: 4242, Reason: "not here"})
			return nil
		})
		tg.Srv.HandleOffer("lab.Service/Yes", func(_ context.Context, o *kernel.Offer) error {
			m := testkit.RequestOf(t, o)
			if string(m.Bytes()) != "please" || o.Streams() != 3 {
				t.Errorf("%d streams, with %q", o.Streams(), m.Bytes())
			}
			ss, err := o.AcceptAll(text("welcome"), nil)
			for i, s := range ss {
				_ = s.Send(context.Background(), text("hello %d", i))
				accepted <- s
			}
			return err
		})
		p.send(brpcAsk{service: "lab.Service", method: "No", id: 7, streams: []int64{0, 1 << 62}}.bytes())
		a, wrapped := p.answer(7)
		if a == nil || !wrapped || a.errno() != 4242 || a.text() != "[E4242]not here" || len(a.streams()) != 0 {
			t.Errorf("a refusal: %s", p.tail())
		}
		if w := p.all(func(w *word) bool { return w.inner != nil })[0]; w.num(1) != 0 || w.num(2) != -1 || w.num(3) != brpcData {
			t.Errorf("it came in %v", w)
		}
		ids := []int64{1 << 40, 0, 3} // any numbers, zero among them
		p.send(brpcAsk{service: "lab.Service", method: "Yes", id: -9, streams: ids, payload: "please"}.bytes())
		a, wrapped = p.answer(-9)
		if a == nil || !wrapped || a.errno() != 0 || len(a.streams()) != 3 || string(a.payload) != "welcome" {
			t.Fatalf("an acceptance: %s", p.tail())
		}
		theirs := a.streams()
		for i, id := range ids {
			if got := p.texts(id); got != fmt.Sprintf(`["hello %d"]`, i) {
				t.Errorf("stream %d heard %s", i, got)
			}
			p.send(strmFrame(brpcClose, theirs[i], id, false, ""))
			if len(p.frames(brpcClose, id)) != 1 {
				t.Errorf("a CLOSE was answered with %s", p.tail())
			}
			p.send(strmFrame(brpcRST, theirs[i], -1, false, "")) // the last of the three: nobody minds
			s := <-accepted
			if _, err := s.Receive(context.Background()); !errors.Is(err, io.EOF) || s.Err() != nil {
				t.Errorf("stream %d ended with %v, %v", id, err, s.Err())
			}
		}
		p.send(brpcAsk{service: "lab.Service", method: "Nope", id: 8}.bytes())
		if a, wrapped := p.answer(8); a == nil || wrapped || a.errno() != 1002 || !strings.Contains(a.text(), "lab.Service/Nope") {
			t.Errorf("an unknown method: %s", p.tail())
		}
		p.send(brpcAsk{method: "echo", id: 9, payload: "x"}.bytes())
		if a, wrapped := p.answer(9); a == nil || wrapped || a.errno() != 0 || string(a.payload) != "x" {
			t.Errorf("a call: %s", p.tail())
		}
		if p.over() != nil || tg.Srv.Conns()[0].Streams() != 0 {
			t.Errorf("%d streams are left; %s", tg.Srv.Conns()[0].Streams(), p.tail())
		}
	})
}

// Our CLOSE comes once, after all data, the peer's is answered with one, and its
// RST is the last word.
func TestBrpcClosesAsBrpcDoes(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		tg.Srv.Handle("says", func(ctx context.Context, s *kernel.Stream) error {
			for i := range 3 {
				if err := s.Send(ctx, text("%d", i)); err != nil {
					return err
				}
			}
			return nil
		})
		own, theirs := p.open("says")
		p.send(strmFeedback(theirs, own, 3))
		if got := p.texts(own); got != `["0" "1" "2"]` || len(p.frames(brpcClose, own)) != 1 {
			t.Fatalf("heard %s", p.tail())
		}
		if n := tg.Srv.Conns()[0].Streams(); n != 1 {
			t.Errorf("%d streams: the peer has not closed", n)
		}
		p.send(strmData(theirs, own, "crosses"), strmFrame(brpcClose, theirs, own, false, ""))
		if len(p.frames(brpcClose, own)) != 1 || len(p.frames(brpcRST, own)) != 1 {
			t.Errorf("heard %s", p.tail())
		}
		if n := tg.Srv.Conns()[0].Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		// The other way: data, and then their CLOSE, behind which nothing is told twice.
		got := make(chan string, 1)
		tg.Srv.Handle("hears", func(ctx context.Context, s *kernel.Stream) error {
			log := ""
			for m := range s.In() {
				log += string(m.Bytes()) + " "
				m.Release()
			}
			_, err := s.Receive(ctx)
			got <- fmt.Sprint(log, err, " ", s.Err())
			return nil
		})
		own, theirs = p.open("hears")
		p.send(strmData(theirs, own, "a"), strmFrame(brpcData, theirs, own, true, "b"), strmData(theirs, own, "c"),
			strmFrame(brpcClose, theirs, own, false, ""), strmFrame(brpcClose, theirs, own, false, ""))
		if log := <-got; log != "a bc EOF <nil>" {
			t.Errorf("the handler saw %s", log)
		}
		synctest.Wait()
		if len(p.frames(brpcClose, own)) != 1 {
			t.Errorf("heard %s", p.tail())
		}
	})
}

// Feedback is a total of payload, sent when the queue has run dry, to those who
// asked for it.
func TestBrpcReportsOnRequestOnly(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		offers := tg.Srv.Offers()
		for _, quiet := range []bool{false, true} {
			id := p.next
			p.next++
			p.send(brpcAsk{method: "x", id: id, streams: []int64{id}, quiet: quiet}.bytes())
			s, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{InBuffer: kernel.None})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			a, _ := p.answer(id)
			to := a.streams()[0]
			p.send(strmData(to, id, "12345"), strmData(to, id, ""), strmData(to, id, "678"))
			if len(p.reports(id)) != 0 {
				t.Errorf("a report before anything was taken: %s", p.tail())
			}
			for range 3 {
				m, err := s.Receive(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				m.Release()
			}
			synctest.Wait()
			fs := p.reports(id)
			if quiet {
				if len(fs) != 0 {
					t.Errorf("a report that nobody wants: %v", fs)
				}
			} else if len(fs) != 1 || fs[0].sub(5).num(1) != 8 || fs[0].num(2) != to {
				t.Errorf("reports %v", fs)
			}
			p.send(strmData(to, id, "more")) // without a report's answer it goes on
			if m, err := s.Receive(context.Background()); err != nil || string(m.Bytes()) != "more" {
				t.Errorf("%q, %v", m.Bytes(), err)
			}
			s.Abort(status.Aborted, "")
		}
	})
}

// A peer without a reader is not written to, and is told when we have none; one
// whose window is unlimited asks for no reports.
func TestBrpcSettingsTravel(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		offers := tg.Srv.Offers()
		p.send(brpcAsk{method: "x", id: 1, streams: []int64{1}, deaf: true}.bytes())
		s, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{NoReceive: true, SendLimit: kernel.Unlimited})
		if err != nil {
			t.Fatal(err)
		}
		m := text("x")
		if err := s.Send(context.Background(), m); !errors.Is(err, kernel.ErrNotReadable) {
			t.Errorf("Send: %v", err)
		}
		m.Release()
		synctest.Wait()
		a, _ := p.answer(1)
		if set := a.sub(8); set.num(2) != 0 || set.num(3) != 0 {
			t.Errorf("need_feedback %d, writable %d", set.num(2), set.num(3))
		}
		s.Abort(status.Aborted, "")
	})
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		for i, k := range []struct {
			o                  kernel.StreamOptions
			feedback, writable int64
		}{
			{kernel.StreamOptions{}, 1, 1},
			{kernel.StreamOptions{SendLimit: 10}, 1, 1},
			{kernel.StreamOptions{SendLimit: kernel.Unlimited}, 0, 1},
			{kernel.StreamOptions{NoReceive: true}, 1, 0},
		} {
			s, err := c.Open(context.Background(), "lab.Service/Open", &kernel.OpenOptions{Stream: k.o})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r := p.request(i)
			if set := r.sub(8); set.num(2) != k.feedback || set.num(3) != k.writable {
				t.Errorf("%+v: need_feedback %d, writable %d", k.o, set.num(2), set.num(3))
			}
			if q := r.sub(1); q.str(1) != "lab.Service" || q.str(2) != "Open" {
				t.Errorf("asked for %q of %q", q.str(2), q.str(1))
			}
			s.Abort(status.Aborted, "")
		}
	})
}

// What is sent before the answer waits for it, on every stream of the request; a
// plain answer is as good as one in a frame, and a server may accept fewer.
func TestBrpcQueuedWritesFollowTheAnswer(t *testing.T) {
	for name, plain := range map[string]bool{"wrapped": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				ss, err := c.OpenN(ctx, "x", &kernel.OpenOptions{Request: text("request")}, make([]kernel.StreamOptions, 3)...)
				if err != nil {
					t.Fatal(err)
				}
				for i, s := range ss {
					for n := range 3 {
						if err := s.Send(ctx, text("%d.%d", i, n)); err != nil {
							t.Fatal(err)
						}
					}
				}
				synctest.Wait()
				r := p.request(0)
				ids := r.streams()
				if len(ids) != 3 || string(r.payload) != "request" || len(p.all(func(w *word) bool { return w.magic == "STRM" })) > 0 {
					t.Fatalf("before the answer: %s", p.tail())
				}
				meta := join(str(2, num(1, 0)), num(4, r.num(4)), brpcSettings([]int64{70, 71}, true, true))
				answer := packed("PRPC", meta, []byte("reply"))
				if !plain {
					answer = strmData(ids[0], 70, string(answer))
				}
				p.send(strmData(ids[1], 71, "early"), answer, strmData(ids[0], 70, "late"))
				time.Sleep(settle)
				synctest.Wait()
				for i, to := range []int64{70, 71} {
					if got, want := p.texts(to), fmt.Sprintf(`["%d.0" "%d.1" "%d.2"]`, i, i, i); got != want {
						t.Errorf("stream %d heard %s", to, got)
					}
				}
				if err := ss[2].Err(); !errors.Is(err, kernel.ErrRefused) {
					t.Errorf("the third: %v", err)
				}
				reply, _, err := ss[0].Accepted(ctx)
				if err != nil || string(reply.Bytes()) != "reply" {
					t.Errorf("%q, %v", reply.Bytes(), err)
				}
				reply.Release()
				for i, want := range []string{"late", "early"} {
					m, err := ss[i].Receive(ctx)
					if err != nil || string(m.Bytes()) != want {
						t.Errorf("stream %d received %q, %v", i, m.Bytes(), err)
					}
					m.Release()
				}
			})
		})
	}
}

// A server without an acceptance in its answer has refused, and so has one that
// answers an error; the code and the text are the server's.
func TestBrpcRefusalsOfOthers(t *testing.T) {
	for name, k := range map[string]struct {
		errno        int64
		text         string
		code         status.Code
		notProcessed bool
	}{
		"no stream": {0, "", status.FailedPrecondition, false},
		"no method": {1002, "[127.0.0.1:8000][E1002]Fail to find method=a/b", status.Unimplemented, true},
		"limit":     {2004, "[E2004]Reached server's max_concurrency=1", status.Refused, true},
		"its own":   {4242, "[E4242]because", 4242, false},
		"failed":    {2001, "[E2001]failed", status.Internal, false},
	} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				s, err := c.Open(context.Background(), "a/b", nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(context.Background(), text("let go")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				r := p.request(0)
				meta := join(str(2, join(num(1, k.errno), str(2, k.text))), num(4, r.num(4)))
				p.send(strmData(r.streams()[0], -1, string(packed("PRPC", meta, nil))))
				_, _, err = s.Accepted(context.Background())
				se := wantCode(t, err, k.code)
				if !se.Refused || se.NotProcessed != k.notProcessed || k.errno != 0 && !strings.Contains(k.text, se.Reason) {
					t.Errorf("%+v", se)
				}
				if n := c.Conns()[0].Streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A server of brpc's can lose its first report. Then the window is full for good,
// by what it says: one more message is let through now and then, any later report
// repairs it, and nothing is lost or sent twice.
func TestBrpcLostFirstFeedback(t *testing.T) {
	for name, reports := range map[string]bool{"a later one comes": true, "none ever comes": false} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				ctx := context.Background()
				s, err := c.Open(ctx, "x", &kernel.OpenOptions{Stream: kernel.StreamOptions{SendLimit: 100}})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				own := p.accept(0, "", 50)[0]
				const n = 30
				sent := make(chan error, 1)
				go func() {
					for i := range n {
						m := text("%060d", i)
						c, cancel := context.WithTimeout(ctx, 5*time.Second)
						err := s.Send(c, m)
						cancel()
						if err != nil {
							m.Release()
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				synctest.Wait()
				if got := len(p.frames(brpcData, 50)); got != 2 {
					t.Fatalf("%d messages went into a window of 100", got)
				}
				time.Sleep(99 * time.Millisecond)
				synctest.Wait()
				if got := len(p.frames(brpcData, 50)); got != 2 {
					t.Fatalf("%d messages went before there was a probe", got)
				}
				start := time.Now()
				for told := 0; time.Since(start) < 10*time.Second; time.Sleep(time.Millisecond) {
					synctest.Wait()
					// The first two were taken before the server knew its stream.
					if got := len(p.frames(brpcData, 50)); reports && got > max(told, 2) {
						told = got
						_ = p.say(strmFeedback(own, 50, int64(60*got)))
					}
				}
				want := n
				if !reports {
					want = 5 // two, and three probes
				}
				var all []string
				for i := range want {
					all = append(all, fmt.Sprintf("%060d", i))
				}
				if got := p.texts(50); got != fmt.Sprintf("%q", all) {
					t.Errorf("arrived %s", got)
				}
				if err := <-sent; (err == nil) != reports || err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the sender: %v", err)
				}
				if err := s.Err(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A brpc server that is told of a stream's end before it has noted that the stream is
// connected says nothing. Asked again, it says that it knows no such stream: that is the
// end, in order. It is asked three times.
func TestBrpcLostClose(t *testing.T) {
	for name, answers := range map[string]bool{"a later one is answered": true, "none ever is": false} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				s, err := c.Open(context.Background(), "x", nil)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				own := p.accept(0, "", 50)[0]
				if err := s.Send(context.Background(), text("last")); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				start, over := time.Now(), make(chan error, 1)
				go func() { over <- s.Close(ctx) }()
				closes := func() int { return len(p.frames(brpcClose, 50)) }
				time.Sleep(99 * time.Millisecond)
				synctest.Wait()
				if n := closes(); n != 1 {
					t.Fatalf("%d CLOSEs before there was time for an answer", n)
				}
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if n := closes(); n != 2 {
					t.Fatalf("%d CLOSEs, want a second", n)
				}
				if answers {
					p.send(strmFrame(brpcRST, own, -1, false, ""))
				}
				err = <-over
				took, n := time.Since(start), closes()
				switch {
				case answers && (err != nil || took > 200*time.Millisecond):
					t.Errorf("closed after %v: %v", took, err)
				case !answers && (n != 4 || !errors.Is(err, context.DeadlineExceeded)):
					t.Errorf("%d CLOSEs, then %v", n, err)
				}
				if got := p.texts(50); got != `["last"]` {
					t.Errorf("messages %s", got)
				}
				time.Sleep(time.Minute)
				if again := closes(); again != n {
					t.Errorf("%d more CLOSEs", again-n)
				}
			})
		})
	}
}

// An answer that takes its time is waited for.
func TestBrpcLateClose(t *testing.T) {
	brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
		a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		over := make(chan error, 1)
		go func() { over <- a.Close(w.Ctx) }()
		time.Sleep(10 * time.Second)
		w.WantEOF(b)
		if err := b.Close(w.Ctx); err != nil {
			t.Error(err)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
		c, d := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
		w.Send(c, "on")
		w.Want(d, "on")
	})
}

// A connection that is lost is told to every stream on it once, with the cause, and
// to what waits for an answer.
func TestBrpcConnectionLost(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		ctx := context.Background()
		var ss []*kernel.Stream
		for i := range 3 {
			s, err := c.Open(ctx, "x", nil)
			if err != nil {
				t.Fatal(err)
			}
			ss = append(ss, s)
			synctest.Wait()
			if i < 2 {
				own := p.accept(i, "", int64(50+i))[0]
				p.send(strmData(own, int64(50+i), "before"), strmFrame(brpcData, own, int64(50+i), true, "half of one"))
			}
		}
		called := make(chan error, 1)
		go func() {
			m := text("x")
			_, err := c.Call(ctx, "a/b", m, nil)
			m.Release()
			called <- err
		}()
		synctest.Wait()
		_ = p.nc.Close()
		for i, s := range ss {
			if i < 2 {
				m, err := s.Receive(ctx)
				if err != nil || string(m.Bytes()) != "before" {
					t.Errorf("stream %d: %q, %v", i, m.Bytes(), err)
				}
				m.Release()
			}
			_, err := s.Receive(ctx)
			se := wantCode(t, err, status.ConnectionLost)
			var ce *status.ConnError
			if !errors.As(err, &ce) || errors.Is(err, io.EOF) || !errors.Is(err, io.ErrUnexpectedEOF) || se.NotProcessed {
				t.Errorf("stream %d: %v", i, err)
			}
			testkit.WantClosed(t, "Done", s.Done())
			if again := s.Err(); again != error(se) {
				t.Errorf("stream %d: a second asker is told %v", i, again)
			}
		}
		wantCode(t, <-called, status.ConnectionLost)
	})
}

// Nothing is served before the first request has said who asks: no frame of a
// stream, no other request.
func TestBrpcNothingBeforeAuthentication(t *testing.T) {
	for name, k := range map[string]struct {
		say    []byte
		in     bool // it is let in
		answer int64
		asked  string // what Authenticate was asked about
	}{
		"the token":     {brpcAsk{method: "echo", id: 5, payload: "in", meta: str(7, "sesame")}.bytes(), true, 0, "[sesame]"},
		"another":       {brpcAsk{method: "echo", id: 5, payload: "in", meta: str(7, "guess")}.bytes(), false, 1004, "[guess]"},
		"none":          {brpcAsk{method: "echo", id: 5, payload: "in"}.bytes(), false, 1004, "[]"},
		"late":          {join(brpcAsk{method: "echo", id: 5}.bytes(), brpcAsk{method: "echo", id: 6, meta: str(7, "sesame")}.bytes()), false, 1004, "[]"},
		"for a stream":  {brpcAsk{method: "echo", id: 5, streams: []int64{1}, meta: str(7, "guess")}.bytes(), false, 1004, "[guess]"},
		"a frame first": {join(strmData(1, 1, "x"), brpcAsk{method: "echo", id: 5, meta: str(7, "sesame")}.bytes()), false, -1, ""},
		"an answer":     {packed("PRPC", join(str(2, num(1, 0)), num(4, 1), str(7, "sesame")), nil), false, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			ran := make(chan string, 10)
			so := kernel.ServerOptions{
				Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
					asked = append(asked, string(p.Token))
					if string(p.Token) != "sesame" {
						return nil, errors.New("who are you")
					}
					return "ali", nil
				},
				Authorize: func(_ context.Context, id kernel.Identity, method string, _ metadata.MD) error {
					ran <- fmt.Sprint(method, " for ", id)
					return nil
				},
			}
			inBrpcTarget(t, so, func(tg *target, p *brpcPeer) {
				_ = p.say(k.say, strmData(1, 9, "nobody's"))
				synctest.Wait()
				if got := fmt.Sprint(asked); k.asked != "" && got != k.asked || k.asked == "" && len(asked) > 0 {
					t.Errorf("Authenticate was asked about %s, want %s", got, k.asked)
				}
				a, wrapped := p.answer(5)
				switch {
				case k.answer < 0 && a != nil, k.answer >= 0 && (a == nil || wrapped || a.errno() != k.answer):
					t.Errorf("answered %s", p.tail())
				}
				if k.in {
					if p.over() != nil || <-ran != "echo for ali" || len(p.frames(brpcRST, 9)) != 1 {
						t.Errorf("let in, and %s", p.tail())
					}
					return
				}
				if p.over() == nil || len(ran) > 0 || len(p.frames(brpcRST, 9)) > 0 || tg.Srv.Stats().Accepted != 0 {
					t.Errorf("not let in, and %d handlers ran: %s", len(ran), p.tail())
				}
			})
		})
	}
}

// One port for sluice and brpc, each of which can be left out; what is neither is
// closed and counted. The same handlers serve both, and see by which they were
// called.
func TestBrpcSharesAPort(t *testing.T) {
	dial := func(t *testing.T, addr string, p frame.Protocol) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := kernel.Dial(ctx, addr, quietClient(&kernel.ClientOptions{Protocols: []frame.Protocol{p}}))
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }()
		reply, err := c.Call(ctx, "which", pool.Message{}, nil)
		defer reply.Release()
		return string(reply.Bytes()), err
	}
	for name, k := range map[string]struct {
		served       []frame.Protocol
		sluice, brpc bool
	}{
		"both":        {bothWires(), true, true},
		"sluice only": {nil, true, false},
		"brpc only":   {[]frame.Protocol{strm.Protocol{}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			tg := newTarget(t, false, kernel.ServerOptions{Protocols: k.served})
			tg.Srv.Handle("which", func(ctx context.Context, s *kernel.Stream) error {
				if s.Conn().Peer().Addr == nil {
					t.Error("a peer without an address")
				}
				return s.Send(ctx, text("%s", s.Conn().Protocol()))
			})
			unknown := uint64(0)
			for p, served := range map[frame.Protocol]bool{native.Protocol{}: k.sluice, strm.Protocol{}: k.brpc} {
				got, err := dial(t, tg.Addr, p)
				if served && (err != nil || got != p.Name()) || !served && err == nil {
					t.Errorf("%s: %q, %v", p.Name(), got, err)
				}
				if !served {
					unknown++
				}
			}
			for _, first := range []string{
				"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "PRPx", "STRM\x00\x00\x00\x00\x00\x00\x00\x00", "\x00",
			} {
				nc := tg.Connect()
				_, _ = io.WriteString(nc, first)
				_ = nc.SetReadDeadline(time.Now().Add(patience))
				if got, err := io.ReadAll(nc); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%q was answered with %q, %v", first, got, err)
				}
				unknown++
			}
			eventually(t, "connections of no known protocol to be counted", func() bool {
				st := tg.Srv.Stats()
				return st.UnknownProtocol == unknown && st.Conns == 0
			}, func() string { return fmt.Sprintf("%+v, want %d", tg.Srv.Stats(), unknown) })
		})
	}
}

// Draining: what runs goes on, a call and an open that come afterwards are told that
// nobody has looked at them, and the connection ends behind the last stream, with a
// moment for what was on its way.
func TestBrpcDrain(t *testing.T) {
	for name, running := range map[string]bool{"with a stream": true, "idle": false} {
		t.Run(name, func(t *testing.T) {
			inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
				var own, theirs int64
				if running {
					own, theirs = p.open("echo")
				} else {
					p.send(brpcAsk{method: "echo", id: 1}.bytes())
				}
				down := make(chan error, 1)
				go func() { down <- tg.Srv.Shutdown(context.Background()) }()
				synctest.Wait()
				if running {
					time.Sleep(5 * time.Second)
					p.send(strmData(theirs, own, "goes on"))
					if got := p.texts(own); got != `["goes on"]` {
						t.Errorf("the stream heard %s", got)
					}
				}
				p.send(brpcAsk{method: "echo", id: 11, payload: "late"}.bytes(),
					brpcAsk{method: "echo", id: 12, streams: []int64{12, 13}, payload: "late"}.bytes(), strmData(1, 12, "behind it"))
				call, wrapped := p.answer(11)
				if call == nil || wrapped || call.errno() != 2003 {
					t.Errorf("a call was told %s", p.tail())
				}
				if open, wrapped := p.answer(12); open == nil || !wrapped || open.errno() != 2003 {
					t.Errorf("an open was told %s", p.tail())
				}
				if p.over() != nil || len(down) > 0 {
					t.Fatalf("it ended at once: %s", p.tail())
				}
				if running {
					p.send(strmFrame(brpcClose, theirs, own, false, ""))
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if !errors.Is(p.over(), io.EOF) {
					t.Errorf("the connection did not end: %s", p.tail())
				}
				_ = p.nc.Close()
				if err := <-down; err != nil {
					t.Errorf("Shutdown: %v", err)
				}
			})
		})
	}
}

// A client that is told that its server stops makes the refused call again on a
// new connection, and opens nothing more on the old one.
func TestBrpcClientLeavesAServerThatStops(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Loose = true
	w.Srv.Handle("echo", echo)
	s := w.Open("echo")
	w.Send(s, "before")
	w.Want(s, "before")
	old := w.Client.Conns()[0]
	down := make(chan error, 1)
	go func() { down <- w.Srv.Shutdown(w.Ctx) }()
	var ne net.Error
	w.Eventually("the GOAWAY", func() bool {
		m := text("x")
		reply, err := old.Call(w.Ctx, "echo", m, nil)
		if err == nil {
			reply.Release()
			return false
		}
		m.Release()
		var se *status.StreamError
		if errors.As(err, &se) && (se.Code != status.GoingAway || !se.NotProcessed) {
			t.Errorf("a call: %v", err)
		}
		return errors.Is(err, kernel.ErrGoingAway)
	})
	m := text("x")
	if _, err := w.Client.Call(w.Ctx, "echo", m, nil); err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("a call to a server that is gone: %v", err)
	}
	m.Release()
	w.Send(s, "runs on")
	w.Want(s, "runs on")
	if err := s.Close(w.Ctx); err != nil {
		t.Error(err)
	}
	if err := testkit.Handled(w, down); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Methods are told apart as the peer says them.
func TestBrpcMethodsOfOthers(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		var seen []string
		tg.Srv.HandleOffer("example.EchoService/Echo", func(_ context.Context, o *kernel.Offer) error {
			seen = append(seen, o.Method())
			return errors.New("no")
		})
		tg.Srv.HandleOffer("Echo", func(_ context.Context, o *kernel.Offer) error {
			seen = append(seen, o.Method())
			return errors.New("no")
		})
		p.send(brpcAsk{service: "example.EchoService", method: "Echo", id: 1}.bytes())
		p.send(brpcAsk{method: "Echo", id: 2}.bytes())
		if !slices.Equal(seen, []string{"example.EchoService/Echo", "Echo"}) {
			t.Errorf("handlers saw %q", seen)
		}
	})
}
