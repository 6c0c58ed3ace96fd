package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// What brpc's programs lose right behind the answer that establishes a stream.

// brpcUnknown is the type of a frame that brpc ignores on a stream that it knows.
const brpcUnknown = 0

// A server of brpc's answers, and only then marks its stream as connected. What it writes in
// between is dropped, and so is its CLOSE. So the first message waits a little behind the
// answer.
func TestBrpcTheFirstMessageWaitsBehindTheAnswer(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		ctx := context.Background()
		ss, err := c.OpenN(ctx, "x", nil, make([]kernel.StreamOptions, 2)...)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range ss {
			if err := s.Send(ctx, text("%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		own := p.answerRequest(0, "", 50, 51)
		if _, _, err := ss[0].Accepted(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settle - 1)
		synctest.Wait()
		if n := len(p.frames(brpcData, 50)) + len(p.frames(brpcData, 51)); n != 0 {
			t.Errorf("%d messages right behind the answer", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		for i, id := range []int64{50, 51} {
			if got := p.texts(id); got != fmt.Sprintf(`["%d"]`, i) {
				t.Errorf("stream %d heard %s", id, got)
			}
		}
		p.send(strmFrame(brpcClose, own[0], 50, false, ""), strmFrame(brpcClose, own[1], 51, false, ""))
		for _, s := range ss {
			if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
				t.Errorf("it ended with %v", err)
			}
		}
	})
}

// A server that has written on a stream knows it.
func TestBrpcTheFirstMessageFollowsTheServers(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		s, err := c.Open(context.Background(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(context.Background(), text("at once")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		own := p.answerRequest(0, "", 50)
		p.send(strmData(own[0], 50, "hello"))
		if got := p.texts(50); got != `["at once"]` {
			t.Errorf("heard %s", got)
		}
		s.Abort(status.Aborted, "")
	})
}

// All that is sent waits no longer than the first message, and an end waits with it.
func TestBrpcAnEndWaitsBehindTheAnswer(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		s, err := c.Open(context.Background(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		own := p.answerRequest(0, "", 50)
		closed := make(chan error, 1)
		go func() { closed <- s.Close(context.Background()) }()
		synctest.Wait()
		if n := len(p.frames(brpcClose, 50)); n != 0 {
			t.Error("CLOSE right behind the answer")
		}
		time.Sleep(settle)
		synctest.Wait()
		if n := len(p.frames(brpcClose, 50)); n != 1 {
			t.Errorf("%d CLOSEs", n)
		}
		p.send(strmFrame(brpcClose, own[0], 50, false, ""))
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A server that has lost a stream all the same says so when it is asked: within a second
// the stream fails.
func TestBrpcALostStreamFails(t *testing.T) {
	for name, after := range map[string]time.Duration{"at once": 0, "a little later": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				s, err := c.Open(context.Background(), "x", nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(context.Background(), text("lost")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				own := p.answerRequest(0, "", 50)
				start := time.Now()
				go func() {
					for told := false; !told && time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
						told = time.Since(start) >= after && len(p.frames(brpcUnknown, 50)) > 0
						if told {
							time.Sleep(after)
							_ = p.say(strmFrame(brpcRST, own[0], -1, false, ""))
						}
					}
				}()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				_, err = s.Receive(ctx)
				se := wantCode(t, err, status.Aborted)
				if !se.Remote || !strings.Contains(se.Reason, "may have lost the stream") {
					t.Errorf("%+v", se)
				}
				if d := time.Since(start); d > time.Second {
					t.Errorf("after %v", d)
				}
				for _, w := range p.frames(brpcUnknown, 50) {
					if w.num(2) != own[0] || len(w.payload) > 0 {
						t.Errorf("asked by %v", w)
					}
				}
			})
		})
	}
}

// A server that knows its stream and has nothing to say is asked three times, and the stream
// goes on. One that has spoken is not asked, nor is one that was sent nothing.
func TestBrpcASilentStreamGoesOn(t *testing.T) {
	for name, k := range map[string]struct {
		sends, speaks bool
		asked         int
	}{
		"silent":         {sends: true, asked: 3},
		"speaks":         {sends: true, speaks: true},
		"nothing to say": {},
	} {
		t.Run(name, func(t *testing.T) {
			brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
				s, err := c.Open(context.Background(), "x", nil)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				own := p.accept(0, "", 50)
				if k.sends {
					if err := s.Send(context.Background(), text("x")); err != nil {
						t.Fatal(err)
					}
				}
				if k.speaks {
					p.send(strmFeedback(own[0], 50, 0))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := len(p.frames(brpcUnknown, 50)); n != k.asked {
					t.Errorf("asked %d times, want %d", n, k.asked)
				}
				p.send(strmData(own[0], 50, "at last"))
				m, err := s.Receive(context.Background())
				if err != nil || string(m.Bytes()) != "at last" {
					t.Errorf("%q, %v", m.Bytes(), err)
				}
				s.Abort(status.Aborted, "")
			})
		})
	}
}

// Our own server does not mind being asked, however many streams it leaves unread.
func TestBrpcManySilentStreamsAreNoAbuse(t *testing.T) {
	const n = 1500 // asked three times each: far more than frames without effect may be
	brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
		offers := w.Srv.Offers()
		var as, bs []*kernel.Stream
		for range n {
			a, err := w.Client.Open(w.Ctx, "x", &kernel.OpenOptions{Stream: kernel.StreamOptions{SendLimit: kernel.Unlimited}}) // without reports
			if err != nil {
				t.Fatal(err)
			}
			w.Send(a, "unread")
			b, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{InBuffer: kernel.None})
			if err != nil {
				t.Fatal(err)
			}
			as, bs = append(as, a), append(bs, b)
		}
		time.Sleep(10 * time.Second)
		w.Quiesce()
		for i, a := range as {
			if err := a.Err(); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
		}
		w.Cleanup(append(as, bs...)...)
	})
}

// A client of brpc's fails its RPC when an end overtakes the answer: the end waits a little,
// or for the client's first frame. Behind data that is a report, which is waited for longer: on a
// busy machine 5 ms were not enough for 16 streams of 400.
func TestBrpcAHandlersEndWaitsBehindTheAnswer(t *testing.T) {
	for name, k := range map[string]struct {
		message                  string
		fails, unlimited, speaks bool
		wait                     time.Duration
	}{
		"clean":                {message: "hello", wait: 400 * time.Millisecond},
		"nothing to report":    {wait: settle},
		"no reports asked for": {message: "hello", unlimited: true, wait: settle},
		"failed":               {message: "hello", fails: true, wait: settle},
		"the client speaks":    {message: "hello", speaks: true},
	} {
		t.Run(name, func(t *testing.T) {
			so := kernel.ServerOptions{}
			if k.unlimited {
				so.Stream.SendLimit = kernel.Unlimited
			}
			inBrpcTarget(t, so, func(tg *target, p *brpcPeer) {
				typ := int64(brpcClose)
				if k.fails {
					typ = brpcRST
				}
				tg.Srv.Handle("one", func(_ context.Context, s *kernel.Stream) error {
					_ = s.Send(context.Background(), text("%s", k.message))
					if k.fails {
						return errors.New("failed")
					}
					return nil
				})
				const own = 7
				p.send(brpcAsk{method: "one", id: own, streams: []int64{own}}.bytes())
				a, _ := p.answer(own)
				if a == nil || p.texts(own) != fmt.Sprintf("[%q]", k.message) {
					t.Fatalf("heard %s", p.tail())
				}
				if n := len(p.frames(typ, own)); n != 0 {
					t.Errorf("the end came right behind the answer: %s", p.tail())
				}
				if k.speaks {
					p.send(strmFeedback(a.streams()[0], own, 5))
				} else {
					time.Sleep(k.wait - 1)
					synctest.Wait()
					if n := len(p.frames(typ, own)); n != 0 {
						t.Errorf("the end came early: %s", p.tail())
					}
					time.Sleep(time.Nanosecond)
					synctest.Wait()
				}
				if n := len(p.frames(typ, own)); n != 1 {
					t.Errorf("%d ends, want 1: %s", n, p.tail())
				}
				p.send(strmFrame(brpcClose, a.streams()[0], own, false, ""))
				time.Sleep(time.Second)
				synctest.Wait()
				if n := tg.Srv.Conns()[0].Streams(); n != 0 || len(p.frames(brpcClose, own)) > 1 {
					t.Errorf("%d streams are left: %s", n, p.tail())
				}
			})
		})
	}
}

// A handler of brpc's can accept a stream and then fail its RPC: one answer has both. The open
// is refused with the error, and the server is told to let its stream go.
func TestBrpcAnAcceptanceThatFailed(t *testing.T) {
	brpcServer(t, kernel.ClientOptions{}, func(p *brpcPeer, c *kernel.Client) {
		ss, err := c.OpenN(context.Background(), "x", nil, make([]kernel.StreamOptions, 2)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := ss[0].Send(context.Background(), text("let go")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r := p.request(0)
		meta := join(str(2, join(num(1, 4242), str(2, "[E4242]because"))), num(4, r.num(4)), brpcSettings([]int64{70, 71}, true, true))
		p.send(strmData(r.streams()[0], 70, string(packed("PRPC", meta, nil))))
		for i, s := range ss {
			_, _, err = s.Accepted(context.Background())
			if se := wantCode(t, err, 4242); !se.Refused || se.Reason != "because" {
				t.Errorf("stream %d: %+v", i, se)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, id := range []int64{70, 71} {
			if n := len(p.frames(brpcRST, id)); n != 1 || p.texts(id) != "[]" {
				t.Errorf("stream %d: %d resets: %s", id, n, p.tail())
			}
		}
		if n := c.Conns()[0].Streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// A server of ours says that it knows its streams: a client of ours need not wait, however
// many there are.
func TestBrpcTwoOfOursDoNotWait(t *testing.T) {
	brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		start := time.Now()
		for i := range 100 {
			s := w.Open("echo")
			w.Send(s, "%d", i)
			w.Want(s, "%d", i)
			if err := s.Close(w.Ctx); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("100 streams took %v", d)
		}
	})
}
