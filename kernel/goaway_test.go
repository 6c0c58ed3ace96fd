package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// noLast is what the first GOAWAY of a drain names: every stream is served yet.
const noLast = 1<<31 - 1

// all returns the frames of a kind that were heard, of stream id.
func (r *raw) all(k frame.Kind, id uint64) (hs []heard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.heard {
		if h.kind == k && h.stream == id {
			hs = append(hs, h)
		}
	}
	return hs
}

// words are the messages received on stream id, none of them in pieces.
func (r *raw) words(id uint64) string {
	var ws []string
	for _, h := range r.all(frame.Data, id) {
		ws = append(ws, string(h.data))
	}
	return fmt.Sprintf("%q", ws)
}

// left is what the other side lets us send on the connection now.
func (r *raw) left() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.credit - r.spent
}

// send writes bytes and waits until both sides have handled them.
func (r *raw) send(parts ...[]byte) {
	r.t.Helper()
	if err := r.write(join(parts...)); err != nil {
		r.t.Fatalf("write: %v", err)
	}
	synctest.Wait()
}

// group opens n streams with one request and waits for nothing.
func (r *raw) group(method string, n int) uint64 {
	r.t.Helper()
	id := r.next
	r.next += 2 * uint64(n)
	f := openFrame(id, method)
	for range n - 1 {
		f.Grants = append(f.Grants, f.Grants[0])
	}
	r.say(f)
	return id
}

// wantRefused checks that an open was answered with "not processed", once, and
// with nothing else.
func (r *raw) wantRefused(id uint64) {
	r.t.Helper()
	hs := r.all(frame.Reject, id)
	if len(hs) != 1 || !hs[0].fresh || hs[0].code != status.GoingAway {
		r.t.Errorf("the refusal of stream %d: %+v", id, hs)
	}
	for _, k := range []frame.Kind{frame.Accept, frame.Data, frame.EOS, frame.Reset, frame.Stop} {
		if hs := r.all(k, id); len(hs) > 0 {
			r.t.Errorf("stream %d was refused, and heard %+v", id, hs)
		}
	}
}

// A draining is a server that drains, and a client that has received the first GOAWAY and
// not answered the ping behind it yet.
type draining struct {
	*raw
	conn     *kernel.Conn
	handled  atomic.Int32
	shutdown chan error
	running  uint64 // open since before the GOAWAY, one word echoed
	ended    chan error
}

// drainOf starts a server's drain under ctx with one stream running.
func drainOf(ctx context.Context, t *testing.T) *draining {
	t.Helper()
	tg := newTarget(t, true, kernel.ServerOptions{})
	w := &draining{shutdown: make(chan error, 1), ended: make(chan error, 10)}
	tg.Srv.Handle("counted", func(ctx context.Context, s *kernel.Stream) error {
		w.handled.Add(1)
		err := echo(ctx, s)
		w.ended <- err
		return err
	})
	w.raw = tg.attack(hello())
	w.running = w.open("counted")
	w.send(data(w.running, []byte("before")))
	w.conn = tg.Srv.Conns()[0]
	go func() { w.shutdown <- tg.Srv.Shutdown(ctx) }()
	synctest.Wait()
	if g := w.all(frame.GoAway, 0); len(g) != 1 || g[0].value != noLast || g[0].code != status.OK {
		t.Fatalf("the first GOAWAY: %+v", g)
	}
	return w
}

// answer answers the last ping, which followed the first GOAWAY, and returns
// what the second one names.
func (w *draining) answer() uint64 {
	w.t.Helper()
	pings := w.all(frame.Ping, 0)
	w.send(frames(frame.Frame{Kind: frame.Pong, Value: pings[len(pings)-1].value}))
	g := w.all(frame.GoAway, 0)
	if len(g) != 2 || g[1].code != status.OK {
		w.t.Fatalf("the second GOAWAY: %+v", g)
	}
	return g[1].value
}

// tooLate opens streams with data behind them, alone and in a group, whole and
// in pieces, and checks what becomes of them: 720 KB in all.
func (w *draining) tooLate() {
	w.t.Helper()
	p := make([]byte, 60_000)
	whole, pieces, cut, several := w.open("counted"), w.open("counted"), w.open("counted"), w.group("counted", 3)
	w.send(
		data(whole, p), data(whole, p), data(whole, nil), frames(frame.Frame{Kind: frame.EOS, Stream: whole}),
		first(pieces, 180_000, p), data(whole+2*5, p), more(pieces, p, false), more(pieces, p, true), // pieces of two streams mixed
		first(cut, 500_000, p), frames(frame.Frame{Kind: frame.Reset, Stream: cut}),
		data(several, p), first(several+2, 120_000, p), more(several+2, p, true), data(several+4, p), data(several+4, p),
	)
	for _, id := range []uint64{whole, pieces, cut, several} {
		w.wantRefused(id)
	}
	if n := len(w.all(frame.Reject, several+2)) + len(w.all(frame.Reject, several+4)); n > 0 {
		w.t.Errorf("one request was refused %d times", n+1)
	}
	// Less than half the window is owed while streams are open.
	if left, window := w.left(), w.peer.ConnCredit; left <= window/2 {
		w.t.Errorf("%d bytes of credit are left of %d", left, window)
	}
	if b := w.conn.Snapshot(); b.Assembled != 0 || b.Queued != 0 || b.Streams == 0 && b.ExtraWindows != 0 {
		w.t.Errorf("the server's balance: %+v", b)
	}
}

// wantNothingOwed checks the connection's credit when all streams are over.
func (w *draining) wantNothingOwed() {
	w.t.Helper()
	if left := w.left(); left != w.peer.ConnCredit {
		w.t.Errorf("%d bytes of credit are left of %d: %s", left, w.peer.ConnCredit, w.tail())
	}
}

// A drain serves what was opened before its second GOAWAY, refuses what comes
// after that with all data behind it, and ends with the last stream.
func TestDrainRefusesWhatComesBehindTheGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := drainOf(context.Background(), t)
		late := w.open("counted")
		both := w.group("counted", 2) // a handler uses the first
		w.send(data(late, []byte("crossed")), data(both, []byte("crossed too")))
		if got := w.words(late) + w.words(both); got != `["crossed"]["crossed too"]` {
			t.Errorf("opens that crossed the first GOAWAY heard %s: %s", got, w.tail())
		}
		if last := w.answer(); last != both+2 {
			t.Errorf("the second GOAWAY names %d, the last open was %d", last, both+2)
		}
		w.tooLate()
		w.send(data(w.running, []byte("between")))
		w.tooLate()
		w.send(data(w.running, []byte("after")))
		if n := w.handled.Load(); n != 3 {
			t.Errorf("%d handlers ran", n)
		}
		if b := w.conn.Snapshot(); b.Streams != 3 {
			t.Errorf("%d streams are open", b.Streams)
		}
		for _, id := range []uint64{late, both, w.running} {
			if len(w.shutdown) > 0 || w.over() != nil {
				t.Fatalf("over before stream %d: %s", id, w.tail())
			}
			w.send(frames(frame.Frame{Kind: frame.EOS, Stream: id}))
			if len(w.all(frame.EOS, id)) != 1 || len(w.all(frame.Reset, id)) > 0 {
				t.Errorf("stream %d did not end in order: %s", id, w.tail())
			}
			w.say(frame.Frame{Kind: frame.Ended, Stream: id, Value: uint64(len(w.all(frame.Data, id)))})
			synctest.Wait()
		}
		if got := w.words(w.running); got != `["before" "between" "after"]` {
			t.Errorf("the running stream heard %s", got)
		}
		for range 3 {
			if err := <-w.ended; err != nil {
				t.Errorf("a handler ended with %v", err)
			}
		}
		w.wantNothingOwed()
		if !w.raw.ended(status.OK) {
			t.Errorf("the connection did not end in order: %s", w.tail())
		}
		_ = w.nc.Close()
		if err := <-w.shutdown; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

// A drain's deadline resets the streams that still run. Those that were refused before
// stay refused, and the last GOAWAY names none of them.
func TestDrainsDeadlineCutsWhatRuns(t *testing.T) {
	for _, answered := range []bool{true, false} {
		t.Run(fmt.Sprintf("answered %v", answered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const patience = 7 * time.Second
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				start := time.Now()
				w := drainOf(ctx, t)
				last := w.running
				if answered {
					w.answer()
					w.tooLate()
				} else { // it never gets to the second step
					last = w.open("counted")
					w.send(data(last, []byte("x")))
				}
				time.Sleep(patience - time.Millisecond - time.Since(start))
				synctest.Wait()
				if len(w.shutdown) > 0 || w.over() != nil {
					t.Fatalf("over before the deadline: %s", w.tail())
				}
				go func() { // close when the other side has closed
					for w.over() == nil {
						time.Sleep(time.Millisecond)
					}
					_ = w.nc.Close()
				}()
				if err := <-w.shutdown; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				if d := time.Since(start); d > patience+10*time.Millisecond {
					t.Errorf("Shutdown took %v", d)
				}
				synctest.Wait()
				var se *status.StreamError
				if err := <-w.ended; !errors.As(err, &se) || se.Code != status.ConnectionLost || se.NotProcessed {
					t.Errorf("the handler that was cut ended with %v", err)
				}
				g := w.all(frame.GoAway, 0)
				if h := g[len(g)-1]; h.value != last || h.code != status.GoingAway || !errors.Is(w.over(), io.EOF) {
					w.t.Errorf("the last GOAWAY, which should name %d: %+v, %v", last, h, w.over())
				}
			})
		})
	}
}

// The ping of a drain is written behind its GOAWAY: only then does the answer
// tell that the peer has read the GOAWAY.
func TestDrainAsksBehindItsGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := drainOf(context.Background(), t)
		w.mu.Lock()
		defer w.mu.Unlock()
		if h := w.heard[len(w.heard)-1]; h.kind != frame.Ping {
			t.Errorf("the last frame heard is %+v", h)
		}
	})
}

// rawServers are servers that send any bytes to an honest client, one for each connection
// that it makes.
type rawServers struct {
	tg     *target
	client *kernel.Client
	made   chan *raw
	dials  atomic.Int32
}

func newRawServers(t *testing.T, opts kernel.ClientOptions) *rawServers {
	t.Helper()
	rs := &rawServers{tg: &target{&testkit.Target{T: t, Bubble: true, Log: &journal{}}}, made: make(chan *raw, 10)}
	opts.Limits = targetLimits()
	opts.Dial = func(context.Context, string, string) (net.Conn, error) {
		rs.dials.Add(1)
		a, b := conn.Pipe()
		go rs.serve(b)
		return a, nil
	}
	client, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&opts))
	if err != nil {
		t.Fatal(err)
	}
	rs.client = client
	t.Cleanup(func() { _ = client.Close() })
	return rs
}

func (rs *rawServers) serve(nc net.Conn) {
	r := &raw{tg: rs.tg, t: rs.tg.T, nc: nc, next: 2, cost: native.New(1 << 20)}
	g := &frame.Greeting{Own: hello()}
	sess, err := native.Protocol{}.Handshake(context.Background(), nc, g)
	if err != nil {
		r.t.Error(err)
		return
	}
	r.sess, r.peer, r.credit = sess.(*native.Session), g.Peer, g.Peer.ConnCredit
	rs.made <- r
}

// next returns the client's next connection, which is not read yet.
func (rs *rawServers) next() *raw {
	r := <-rs.made
	rs.tg.T.Cleanup(func() { _ = r.nc.Close() })
	return r
}

// got is the credit that was used by the other side.
func (r *raw) got() (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	begun := map[uint64]bool{}
	for _, h := range r.heard {
		if h.kind != frame.Data {
			continue
		}
		if n += uint64(len(h.data)); !begun[h.stream] {
			n += messageOverhead
		}
		begun[h.stream] = !h.last
	}
	return n
}

// repay returns all credit, and checks the other side's balance when all but
// streams are over.
func (r *raw) repay(c *kernel.Conn, streams int) {
	r.t.Helper()
	r.send(frames(frame.Frame{Kind: frame.Credit, Value: r.got() + hello().ConnCredit}))
	if b := c.Snapshot(); b.Streams != streams || b.Queued != 0 || b.Assembled != 0 || streams == 0 && b.ExtraWindows != 0 || b.SendGranted-b.SendUsed != b.SendWindow {
		r.t.Errorf("the balance: %+v", b)
	}
}

func wantNotProcessed(t *testing.T, what string, s *kernel.Stream) {
	t.Helper()
	var se *status.StreamError
	if err := s.Err(); !errors.As(err, &se) || !errors.Is(err, kernel.ErrRefused) || !se.NotProcessed || se.Code != status.GoingAway {
		t.Errorf("%s ended with %v", what, err)
	}
	if _, err := s.Receive(context.Background()); !errors.Is(err, kernel.ErrRefused) {
		t.Errorf("%s receives %v", what, err)
	}
	m := text("x")
	if err := s.Send(context.Background(), m); !errors.Is(err, kernel.ErrRefused) {
		t.Errorf("%s sends with %v", what, err)
	}
	m.Release()
	if _, _, err := s.Accepted(context.Background()); !errors.Is(err, kernel.ErrRefused) {
		t.Errorf("%s was accepted with %v", what, err)
	}
	wantClosed(t, what+"'s Done", s.Done())
}

// goaways are the ways in which a peer says that it serves stream last and none
// above.
func goaways(last uint64) map[string][]byte {
	one, two := frame.Frame{Kind: frame.GoAway, Value: last}, frame.Frame{Kind: frame.GoAway, Value: noLast}
	return map[string][]byte{"at once": frames(one), "in two steps": frames(two, one)}
}

// serveCall answers the call of stream id.
func (r *raw) serveCall(id uint64, reply string) {
	r.t.Helper()
	r.send(frames(frame.Frame{Kind: frame.Accept, Stream: id, Grants: []frame.Grant{{Credit: 1 << 20}}}), data(id, []byte(reply)),
		frames(frame.Frame{Kind: frame.EOS, Stream: id}, frame.Frame{Kind: frame.Ended, Stream: id, Value: 1}))
}

// Where a GOAWAY says why the connection ends, every stream's error does: of those that were
// served, and of those that were not.
func TestStreamsSayWhyTheirConnectionEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs := newRawServers(t, kernel.ClientOptions{})
		r := rs.next()
		go r.listen()
		var ss [2]*kernel.Stream
		for i := range ss {
			s, err := rs.client.Open(t.Context(), "m", nil)
			ok(t, err)
			ss[i] = s
			synctest.Wait()
		}
		r.send(frames(frame.Frame{Kind: frame.GoAway, Value: 1, Code: status.Checksum, Reason: "a bit\nwas changed"}))
		for i, want := range []*status.StreamError{{Code: status.ConnectionLost}, {Code: status.GoingAway}} {
			_, err := ss[i].Receive(t.Context())
			isErr(t, "a stream", err, want)
			isErr(t, "a stream", err, &status.ConnError{Code: status.Checksum})
			if !strings.Contains(err.Error(), `"a bit\nwas changed"`) { // quoted, so that it forges no line
				t.Errorf("%v", err)
			}
		}
	})
}

// A GOAWAY in order ends a connection at once that has no streams any more, and is why.
func TestAGoAwayEndsAConnectionWithoutStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs := newRawServers(t, kernel.ClientOptions{})
		r := rs.next()
		go r.listen()
		k := rs.client.Conns()[0]
		s := must[*kernel.Stream](t)(k.Open(t.Context(), "m", nil))
		synctest.Wait()
		s.Abort(status.Cancelled, "enough")
		synctest.Wait()
		r.send(frames(frame.Frame{Kind: frame.GoAway, Reason: "for\nrepair"}))
		testkit.WantClosed(t, "Done", k.Done())
		var ce *status.ConnError
		if err := k.Err(); !errors.As(err, &ce) || ce.Code != status.OK || !ce.Remote || !strings.Contains(err.Error(), `"for\nrepair"`) {
			t.Errorf("it has ended with %v", err)
		}
	})
}

// What a client has opened above the last stream of a GOAWAY was not processed, and fails
// so at once. The rest goes on. Calls are retried elsewhere, and nothing else is.
func TestClientsOpensThatRaceTheGoAway(t *testing.T) {
	for name, goaway := range goaways(1) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				rs := newRawServers(t, kernel.ClientOptions{})
				old := rs.next()
				go old.listen()
				first := rs.client.Conns()[0]
				var ss [3]*kernel.Stream
				for i := range ss {
					s, err := rs.client.Open(ctx, "m", nil)
					if err != nil {
						t.Fatal(err)
					}
					for _, m := range []pool.Message{text("a"), sized(30_000*i, 'x')} {
						if err := s.Send(ctx, m); err != nil {
							t.Fatal(err)
						}
					}
					ss[i] = s
					synctest.Wait()
				}
				type result struct {
					m   pool.Message
					err error
				}
				called := make(chan result, 1)
				go func() {
					m, err := rs.client.Call(ctx, "call", text("request"), nil)
					called <- result{m, err}
				}()
				synctest.Wait()
				if _, ok := old.find(frame.Open, 7); !ok {
					t.Fatalf("no open of stream 7: %s", old.tail())
				}

				old.send(goaway)
				wantNotProcessed(t, "stream 3", ss[1])
				wantNotProcessed(t, "stream 5", ss[2])
				if err := ss[0].Err(); err != nil {
					t.Fatalf("stream 1: %v", err)
				}
				old.repay(first, 1)

				fresh := rs.next() // the call's
				go fresh.listen()
				time.Sleep(time.Second)
				synctest.Wait()
				if got := fresh.words(1); got != `["request"]` {
					t.Errorf("the call was made again with %s", got)
				}
				s, err := rs.client.Open(ctx, "new", nil)
				if err != nil || s.Conn() == first {
					t.Fatalf("a new stream: %v, on the old connection: %v", err, s.Conn() == first)
				}
				synctest.Wait()
				fresh.serveCall(1, "reply")
				if r := <-called; r.err != nil || string(r.m.Bytes()) != "reply" {
					t.Errorf("the call gave %q, %v", r.m.Bytes(), r.err)
				} else {
					r.m.Release()
				}
				if n := fresh.count(frame.Open); n != 2 || rs.dials.Load() != 2 {
					t.Errorf("%d opens on the new connection, %d connections", n, rs.dials.Load())
				}
				lateRefusals(old)
				finishesInOrder(t, old, ss[0])
				synctest.Wait()
				if !old.ended(status.OK) {
					t.Errorf("the old connection outlives its last stream: %s", old.tail())
				}
				if n := fresh.count(frame.Open); n != 2 {
					t.Errorf("%d opens on the new connection", n)
				}
			})
		})
	}
}

// lateRefusals are answers to opens that the client knows to be refused, which a
// draining server sends when they reach it.
func lateRefusals(r *raw) {
	for id := uint64(3); id <= 7; id += 2 {
		r.send(frames(frame.Frame{Kind: frame.Reject, Stream: id, Code: status.GoingAway, NotProcessed: true}))
	}
}

// finishesInOrder checks that stream 1, which a GOAWAY allows, goes on and ends cleanly.
func finishesInOrder(t *testing.T, r *raw, s *kernel.Stream) {
	t.Helper()
	ctx := context.Background()
	r.send(frames(frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 1 << 20}}}),
		data(1, []byte("b")), data(1, nil), data(1, []byte("c")))
	for _, want := range []string{"b", "", "c"} {
		m, err := s.Receive(ctx)
		if err != nil || string(m.Bytes()) != want {
			t.Fatalf("received %q, %v, want %q", m.Bytes(), err, want)
		}
		m.Release()
	}
	if err := s.Send(ctx, text("last")); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseSend()
	synctest.Wait()
	if got := r.words(1); got != `["a" "" "last"]` || len(r.all(frame.EOS, 1)) != 1 {
		t.Errorf("stream 1 sent %s: %s", got, r.tail())
	}
	r.send(frames(frame.Frame{Kind: frame.EOS, Stream: 1}, frame.Frame{Kind: frame.Ended, Stream: 1, Value: 3}))
	if m, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("received %q, %v, want the end", m.Bytes(), err)
	}
	if err := s.Err(); err != nil {
		t.Errorf("stream 1 ended with %v", err)
	}
}

// An open that waits to be written when the GOAWAY comes is refused as well,
// and never written: also where several streams are opened by one request.
func TestOpensNotYetWrittenAtTheGoAway(t *testing.T) {
	for name, goaway := range map[string][]byte{
		"at once": goaways(1)["at once"], "in two steps": goaways(1)["in two steps"],
		"the first step alone": frames(frame.Frame{Kind: frame.GoAway, Value: noLast}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				rs := newRawServers(t, kernel.ClientOptions{})
				r := rs.next()
				k := rs.client.Conns()[0]
				s, err := k.Open(ctx, "m", nil)
				if err != nil {
					t.Fatal(err)
				}
				for range 10 {
					if err := s.Send(ctx, sized(60_000, 'x')); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				// To claim that more was read than was makes the client write until
				// what lies between the two is full.
				r.send(frames(frame.Frame{Kind: frame.Read, Value: 100_000}))
				single, err := k.Open(ctx, "m", nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := single.Send(ctx, text("behind")); err != nil {
					t.Fatal(err)
				}
				several, err := k.OpenN(ctx, "m", &kernel.OpenOptions{Request: sized(20_000, 'r')}, make([]kernel.StreamOptions, 3)...)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if single.Err() != nil || single.ID() != 0 || several[2].ID() != 0 {
					t.Fatalf("an open was written: %d, %d, %v", single.ID(), several[2].ID(), single.Err())
				}
				r.send(goaway)
				wantNotProcessed(t, "an open not yet written", single)
				for i, s := range several {
					wantNotProcessed(t, fmt.Sprint("a group's stream ", i), s)
				}
				if _, err := k.Open(ctx, "m", nil); !errors.Is(err, kernel.ErrGoingAway) {
					t.Errorf("a further open: %v", err)
				}
				if err := s.Err(); err != nil {
					t.Errorf("stream 1: %v", err)
				}
				go r.listen()
				synctest.Wait()
				r.send(frames(frame.Frame{Kind: frame.Read, Value: r.bytesRead()}))
				synctest.Wait()
				r.send(frames(frame.Frame{Kind: frame.Read, Value: r.bytesRead()}))
				if n := r.count(frame.Open); n != 1 {
					t.Errorf("%d opens were written", n)
				}
				if got, want := r.got(), uint64(10*(60_000+messageOverhead)); got != want {
					t.Errorf("%d bytes of credit were used, stream 1 sent %d", got, want)
				}
				r.repay(k, 1)
			})
		})
	}
}

// A server opens streams towards its client, and the client says GOAWAY.
func TestServersOpensThatRaceTheGoAway(t *testing.T) {
	for name, goaway := range goaways(2) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				conns := make(chan *kernel.Conn, 1)
				tg := newTarget(t, true, kernel.ServerOptions{OnConn: func(c *kernel.Conn) { conns <- c }})
				r := tg.attack(hello())
				k := <-conns
				own := r.open("echo")
				r.send(data(own, []byte("before")))
				ss := make([]*kernel.Stream, 2)
				for i := range ss {
					s, err := k.Open(ctx, "push", nil)
					if err != nil {
						t.Fatal(err)
					}
					ss[i] = s
				}
				several, err := k.OpenN(ctx, "push", nil, make([]kernel.StreamOptions, 2)...)
				if err != nil {
					t.Fatal(err)
				}
				ss = append(ss, several...)
				for i, s := range ss {
					if err := s.Send(ctx, sized(1000*i, 'p')); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if r.count(frame.Open) != 3 || len(r.all(frame.Data, 8)) != 1 {
					t.Fatalf("heard %s", r.tail())
				}
				r.send(goaway)
				for i, s := range ss[1:] {
					wantNotProcessed(t, fmt.Sprint("push ", i+1), s)
				}
				if _, err := k.Open(ctx, "push", nil); !errors.Is(err, kernel.ErrGoingAway) {
					t.Errorf("a further open: %v", err)
				}
				r.repay(k, 2)
				// Both sides' streams that are served go on.
				r.send(frames(frame.Frame{Kind: frame.Accept, Stream: 2, Grants: []frame.Grant{{Credit: 1 << 20}}}),
					data(2, []byte("on")), data(own, []byte("after")))
				if m, err := ss[0].Receive(ctx); err != nil || string(m.Bytes()) != "on" {
					t.Errorf("received %q, %v", m.Bytes(), err)
				} else {
					m.Release()
				}
				if got := r.words(own); got != `["before" "after"]` {
					t.Errorf("the client's own stream heard %s", got)
				}
				_ = ss[0].CloseSend()
				r.send(frames(frame.Frame{Kind: frame.EOS, Stream: 2}, frame.Frame{Kind: frame.EOS, Stream: own}))
				if m, err := ss[0].Receive(ctx); !errors.Is(err, io.EOF) {
					t.Errorf("received %q, %v, want the end", m.Bytes(), err)
				}
				r.send(frames(frame.Frame{Kind: frame.Ended, Stream: 2, Value: 1}, frame.Frame{Kind: frame.Ended, Stream: own, Value: 2}))
				if left := r.left(); left != r.peer.ConnCredit {
					t.Errorf("%d bytes of credit are left of %d: %s", left, r.peer.ConnCredit, r.tail())
				}
				if !r.ended(status.OK) {
					t.Errorf("the connection outlives its last stream: %s", r.tail())
				}
			})
		})
	}
}

// A server's opens that meet a client's end are above the last stream that the
// client's GOAWAY names, and no handler sees them.
func TestServersOpensAtAClientThatCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int32
		ended := make(chan error, 10)
		rs := newRawServers(t, kernel.ClientOptions{Handlers: serving("push", func(ctx context.Context, s *kernel.Stream) error {
			handled.Add(1)
			err := echo(ctx, s)
			ended <- err
			return err
		})})
		r := rs.next()
		go r.listen()
		served := r.open("push")
		r.send(data(served, []byte("a")))
		if got := r.words(served); got != `["a"]` {
			t.Fatalf("the client's handler said %s", got)
		}
		closed := make(chan error, 1)
		go func() { closed <- rs.client.Close() }()
		synctest.Wait()
		late, several := r.open("push"), r.group("push", 3)
		r.send(data(late, []byte("b")), first(several+2, 1000, bytes.Repeat([]byte("c"), 10)), data(several+4, nil))
		if n := handled.Load(); n != 1 {
			t.Errorf("%d handlers ran", n)
		}
		if h, ok := r.find(frame.GoAway, 0); !ok || h.value != served || h.code != status.Cancelled {
			t.Errorf("the GOAWAY, which should name %d: %+v", served, h)
		}
		_ = r.nc.Close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) {
			t.Errorf("the handler that was cut ended with %v", err)
		}
	})
}

// A call that the GOAWAY left to be served, and that is lost with its
// connection, may have been processed: it is not retried.
func TestACallThatIsServedIsNotRetried(t *testing.T) {
	for name, goaway := range goaways(1) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rs := newRawServers(t, kernel.ClientOptions{})
				r := rs.next()
				go r.listen()
				called := make(chan error, 1)
				go func() {
					m := text("request")
					reply, err := rs.client.Call(context.Background(), "call", m, nil)
					if err == nil {
						reply.Release()
					} else {
						m.Release()
					}
					called <- err
				}()
				synctest.Wait()
				r.send(goaway)
				if len(called) > 0 {
					t.Fatalf("the call ended: %v", <-called)
				}
				_ = r.nc.Close()
				time.Sleep(time.Second)
				var se *status.StreamError
				if err := <-called; !errors.As(err, &se) || se.Code != status.ConnectionLost || se.NotProcessed {
					t.Errorf("the call gave %v", err)
				}
				if n := rs.dials.Load(); n != 1 {
					t.Errorf("%d connections were made", n)
				}
			})
		})
	}
}
