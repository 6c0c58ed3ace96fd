package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A call carries metadata both ways: user fields, and keys that stand for fields of
// brpc's own.
func TestBrpcCallMetadata(t *testing.T) {
	w := overBrpc(t, nil, nil)
	sent := metadata.MD{{Key: "user", Value: "ali"}, {Key: strm.KeyLogID, Value: "42"}, {Key: strm.KeyTraceID, Value: "-1"}, {Key: strm.KeyRequestID, Value: "r-1"}}
	w.Srv.HandleOffer("a.B/C", func(ctx context.Context, o *kernel.Offer) error {
		if !o.Unary() {
			t.Error("a call is not told from a stream")
		}
		for _, f := range sent {
			if got := o.Metadata().Get(f.Key); got != f.Value {
				t.Errorf("%s came as %q", f.Key, got)
			}
		}
		if err := o.SetHeader(metadata.MD{{Key: "header", Value: "1"}}); err != nil {
			return err
		}
		s, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			return err
		}
		if err := s.SetTrailer(metadata.MD{{Key: "trailer", Value: "2"}}); err != nil {
			t.Errorf("SetTrailer of a call: %v", err)
		}
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) { // a call's halves end
			t.Errorf("behind the request: %v", err)
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
		return s.CloseSend()
	})
	reply, err := w.Client.Call(w.Ctx, "a.B/C", text("x"), &kernel.CallOptions{Metadata: sent})
	if err != nil || string(reply.Bytes()) != "x" {
		t.Fatalf("%q, %v", reply.Bytes(), err)
	}
	reply.Release()
}

// Headers and trailers of an answer travel together.
func TestBrpcAnswersMetadataTravelsTogether(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		tg.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
			_ = s.SetHeader(metadata.MD{{Key: "header", Value: "1"}})
			_ = s.SetTrailer(metadata.MD{{Key: "trailer", Value: "2"}, {Key: strm.KeyCompress, Value: "gzip"}})
			return s.Send(ctx, text("reply"))
		})
		p.send(brpcAsk{method: "m", id: 1, meta: str(9, join(str(1, "k"), str(2, "v")))}.bytes())
		a, _ := p.answer(1)
		if a == nil {
			t.Fatal(p.tail())
		}
		got := ""
		for _, v := range a.fields[9] {
			f := &word{fields: parseFields(v.([]byte))}
			got += f.str(1) + "=" + f.str(2) + " "
		}
		if got != "header=1 trailer=2 " || a.num(3) != 2 || !bytes.HasPrefix(a.payload, []byte{0x1f, 0x8b}) {
			t.Errorf("user fields %s, compress_type %d, %q", got, a.num(3), a.payload)
		}
	})
}

// Compression, checksum and attachment are asked for by keys, and are gone from what
// arrives, which says what it had come with.
func TestBrpcCallsArePackedAsTheirKeysSay(t *testing.T) {
	w := overBrpc(t, nil, nil)
	body := strings.Repeat("compress me ", 10_000)
	w.Srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		var md metadata.MD
		for _, key := range []string{strm.KeyCompress, strm.KeyChecksum, strm.KeyAttachmentSize} {
			if v := s.Metadata().Get(key); v != "" {
				md = append(md, metadata.Field{Key: key, Value: v})
			}
		}
		if err := s.SetHeader(md); err != nil {
			return err
		}
		m, err := s.Request(ctx)
		if err != nil {
			return err
		}
		o := s.Offer()
		b, err := o.Accept(m, nil)
		if err == nil && o.Unary() {
			b.Finish(nil)
		}
		return err
	})
	for _, md := range []metadata.MD{
		nil,
		{{Key: strm.KeyCompress, Value: "gzip"}},
		{{Key: strm.KeyCompress, Value: "zlib"}, {Key: strm.KeyChecksum, Value: "crc32c"}},
		{{Key: strm.KeyCompress, Value: "snappy"}, {Key: strm.KeyAttachmentSize, Value: "100"}},
		{{Key: strm.KeyAttachmentSize, Value: decimal(len(body))}, {Key: strm.KeyChecksum, Value: "crc32c"}},
	} {
		reply, err := w.Client.Call(w.Ctx, "echo", text("%s", body), &kernel.CallOptions{Metadata: md})
		if err != nil || string(reply.Bytes()) != body {
			t.Errorf("%v: %d bytes, %v", md, reply.Len(), err)
		}
		reply.Release()
		s, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Metadata: md, Request: text("%s", body)})
		if err != nil {
			t.Fatal(err)
		}
		reply, header, err := s.Accepted(w.Ctx)
		if err != nil || string(reply.Bytes()) != body {
			t.Errorf("%v: %d bytes, %v", md, reply.Len(), err)
		}
		reply.Release()
		for _, f := range md {
			if got := header.Get(f.Key); got != f.Value {
				t.Errorf("%v: the answer says %s %q", md, f.Key, got)
			}
		}
		s.Abort(status.Cancelled, "")
	}
	for _, bad := range []metadata.Field{
		{Key: strm.KeyCompress, Value: "lzma"}, {Key: strm.KeyChecksum, Value: "md5"}, {Key: strm.KeyAttachmentSize, Value: "-1"},
		{Key: strm.KeyAttachmentSize, Value: "4"}, {Key: strm.KeyLogID, Value: "x"},
	} {
		m := text("abc")
		_, err := w.Client.Call(w.Ctx, "echo", m, &kernel.CallOptions{Metadata: metadata.MD{bad}})
		if se := wantCode(t, err, status.InvalidArgument); se.NotProcessed {
			t.Errorf("%v: %+v", bad, se)
		}
		m.Release()
	}
}

// Every code that a handler ends a call with comes as docs/interop.md says, with the
// text.
func TestBrpcCallsEndWithTheirStatus(t *testing.T) {
	w := overBrpc(t, nil, nil)
	var code status.Code
	w.Srv.Handle("fails", func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: code, Reason: "as asked"}
	})
	w.Srv.Handle("plain", func(context.Context, *kernel.Stream) error { return errors.New("some error") })
	w.Srv.Handle("panics", func(ctx context.Context, s *kernel.Stream) error {
		drain(s)
		panic("secret")
	})
	m := text("x")
	defer m.Release()
	for code = 1; code < 100; code++ {
		_, err := w.Client.Call(w.Ctx, "fails", m, nil)
		se := wantCode(t, err, strm.CodeOf(strm.Errno(code)))
		if se.Reason != "as asked" || !se.Remote || se.NotProcessed {
			t.Errorf("%v: %+v", code, se)
		}
	}
	code = status.FirstAppCode + 1_000_000
	_, err := w.Client.Call(w.Ctx, "fails", m, nil)
	wantCode(t, err, code)
	_, err = w.Client.Call(w.Ctx, "plain", m, nil)
	if se := wantCode(t, err, status.Unknown); se.Reason != "some error" {
		t.Errorf("%+v", se)
	}
	_, err = w.Client.Call(w.Ctx, "panics", m, nil)
	if se := wantCode(t, err, status.Internal); strings.Contains(se.Reason, "secret") {
		t.Errorf("%+v", se)
	}
}

// An answer has one message.
func TestBrpcAnswersHaveOneMessage(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Srv.Handle("silent", func(context.Context, *kernel.Stream) error { return nil })
	w.Srv.Handle("twice", func(ctx context.Context, s *kernel.Stream) error {
		_ = s.Send(ctx, text("1"))
		return s.Send(ctx, text("2"))
	})
	w.Call("silent", "x", "")
	m := text("x")
	_, err := w.Client.Call(w.Ctx, "twice", m, nil)
	if se := wantCode(t, err, status.Internal); !strings.Contains(se.Reason, "takes one") {
		t.Errorf("%+v", se)
	}
	m.Release()
}

// The deadline of a call travels as timeout_ms, and is kept on both sides.
func TestBrpcDeadlinesTravel(t *testing.T) {
	brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
		type seen struct {
			left, ended time.Duration
			err         error
		}
		c := make(chan seen, 1)
		w.Srv.Handle("slow", func(ctx context.Context, _ *kernel.Stream) error {
			start := time.Now()
			d, _ := ctx.Deadline()
			<-ctx.Done()
			c <- seen{d.Sub(start), time.Since(start), ctx.Err()}
			return ctx.Err()
		})
		for _, call := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(w.Ctx, 7*time.Second)
			start := time.Now()
			var err error
			if call {
				m := text("x")
				_, err = w.Client.Call(ctx, "slow", m, nil)
				m.Release()
			} else {
				s, oerr := w.Client.Open(ctx, "slow", nil)
				if oerr != nil {
					t.Fatal(oerr)
				}
				_, _, err = s.Accepted(context.Background())
			}
			wantCode(t, err, status.DeadlineExceeded)
			if d := time.Since(start); d != 7*time.Second {
				t.Errorf("call %v: ended after %v", call, d)
			}
			got := <-c
			if got.left != 7*time.Second || got.ended != 7*time.Second || !errors.Is(got.err, context.DeadlineExceeded) {
				t.Errorf("call %v: the server saw %+v", call, got)
			}
			cancel()
		}
	})
}

// A peer's timeout_ms is a handler's deadline.
func TestBrpcPeersDeadlines(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		p.send(brpcAsk{method: "stuck", id: 1, timeout: 500}.bytes())
		time.Sleep(499 * time.Millisecond)
		synctest.Wait()
		if a, _ := p.answer(1); a != nil {
			t.Fatalf("answered too soon: %v", a)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if a, _ := p.answer(1); a == nil || a.errno() != 1008 {
			t.Errorf("answered %s", p.tail())
		}
	})
}

// A call that is given up is not told to the server; its answer is dropped when it
// comes, and the connection goes on.
func TestBrpcACanceledCall(t *testing.T) {
	w := overBrpc(t, nil, nil)
	running, leave := make(chan struct{}), make(chan struct{})
	w.Srv.Handle("slow", func(ctx context.Context, s *kernel.Stream) error {
		running <- struct{}{}
		<-leave
		if err := s.Err(); err != nil {
			t.Errorf("the handler was told %v", err)
		}
		return s.Send(ctx, text("too late"))
	})
	w.Srv.Handle("echo", echo)
	cause := errors.New("changed my mind")
	for range 5 {
		ctx, cancel := context.WithCancelCause(w.Ctx)
		called := make(chan error, 1)
		go func() {
			m := text("x")
			_, err := w.Client.Call(ctx, "slow", m, nil)
			m.Release()
			called <- err
		}()
		testkit.Handled(w, running)
		cancel(cause)
		se := wantCode(t, <-called, status.Cancelled)
		if se.Remote || se.Reason != cause.Error() {
			t.Errorf("%+v", se)
		}
		w.Call("echo", "meanwhile", "meanwhile")
	}
	close(leave)
	w.Eventually("the handlers to end", func() bool { return w.Srv.Conns()[0].Streams() == 0 })
	w.Call("echo", "after", "after")
	if n := len(w.Client.Conns()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// How streams and calls share connections is the client's choice.
func TestBrpcConnectionTypes(t *testing.T) {
	for name, k := range map[string]struct {
		kind      kernel.ConnType
		together  int // connections for five streams at once
		afterward int // and when they are over
	}{
		"single": {kernel.ConnSingle, 1, 1},
		"pooled": {kernel.ConnPooled, 5, 5},
		"short":  {kernel.ConnShort, 5 + 1, 1}, // beside the one that Dial has made
	} {
		t.Run(name, func(t *testing.T) {
			w := overBrpc(t, nil, &kernel.ClientOptions{ConnType: k.kind})
			w.Srv.Handle("echo", echo)
			accepted := func() uint64 { return w.Srv.Stats().Accepted }
			var ss []*kernel.Stream
			for i := range 5 {
				s := w.Open("echo")
				w.Send(s, "%d", i)
				w.Want(s, "%d", i)
				ss = append(ss, s)
			}
			if n := len(w.Client.Conns()); n != k.together {
				t.Errorf("%d connections for five streams, want %d", n, k.together)
			}
			for _, s := range ss {
				if err := s.Close(w.Ctx); err != nil {
					t.Error(err)
				}
			}
			w.Eventually("the connections to be as they should", func() bool { return len(w.Client.Conns()) == k.afterward },
				func() string { return fmt.Sprint(len(w.Client.Conns())) })
			w.Eventually("the server to have counted them", func() bool { return accepted() == uint64(min(k.together, 5)) })
			before := accepted()
			for i := range 10 { // one after the other
				w.Call("echo", decimal(i), decimal(i))
			}
			made := func() uint64 { return accepted() - before }
			if k.kind == kernel.ConnShort { // the server counts a little later
				w.Eventually("ten connections for ten calls in a row", func() bool { return made() == 10 })
			} else if made() > 1 {
				t.Errorf("%d connections for ten calls in a row", made())
			}
			var wg sync.WaitGroup
			for range 20 { // together
				wg.Go(func() { w.Call("echo", "x", "x") })
			}
			wg.Wait()
			w.Eventually("the short ones to be gone", func() bool {
				return k.kind != kernel.ConnShort || len(w.Client.Conns()) == 1
			})
		})
	}
}

// A pooled connection carries the streams of one request, and is used again.
func TestBrpcPooledConnectionsAreUsedAgain(t *testing.T) {
	w := overBrpc(t, nil, &kernel.ClientOptions{ConnType: kernel.ConnPooled, Conns: 2})
	w.Srv.Handle("echo", echo)
	group := func() []*kernel.Stream {
		ss, err := w.Client.OpenN(w.Ctx, "echo", nil, make([]kernel.StreamOptions, 1)...)
		if err != nil {
			t.Fatal(err)
		}
		w.Send(ss[0], "x")
		w.Want(ss[0], "x")
		return ss
	}
	a, b := group(), group()
	if a[0].Conn() == b[0].Conn() {
		t.Error("two requests share a connection")
	}
	if err := w.OpenWithin(); !errors.Is(err, kernel.ErrTooManyStreams) {
		t.Errorf("a third: %v", err)
	}
	third := make(chan *kernel.Stream)
	go func() {
		s, err := w.Client.Open(w.Ctx, "echo", nil)
		if err != nil {
			t.Error(err)
		}
		third <- s
	}()
	if err := a[0].Close(w.Ctx); err != nil {
		t.Error(err)
	}
	s := testkit.Handled(w, third)
	if s.Conn() != a[0].Conn() {
		t.Error("the third has a new connection")
	}
	w.Send(s, "y")
	w.Want(s, "y")
	_ = s.Close(w.Ctx)
	_ = b[0].Close(w.Ctx)
}

// What is longer than the peer takes fails at the writer, where the writer knows;
// elsewhere the reader resets that stream, or refuses that request, and the
// connection goes on.
func TestBrpcLimitsOfMessages(t *testing.T) {
	so := &kernel.ServerOptions{Limits: kernel.Limits{MaxMessage: 100_000}, Protocols: bothWires()}
	for name, k := range map[string]struct {
		body   int
		writer bool
	}{"told": {100_064, true}, "not told": {0, false}} {
		t.Run(name, func(t *testing.T) {
			co := &kernel.ClientOptions{Protocols: []frame.Protocol{strm.Protocol{MaxBody: k.body}}}
			w := newWorld(t, loops, so, co)
			w.Srv.Handle("echo", echo)
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			w.SendMessage(a, sized(100_000, 1))
			w.DrainN(b, 1)
			m := sized(100_001, 1)
			defer m.Release()
			shared := m.Share()
			if err := a.Send(w.Ctx, shared); errors.Is(err, kernel.ErrTooLarge) != k.writer || (err == nil) == k.writer {
				t.Fatalf("Send: %v", err)
			}
			if k.writer {
				shared.Release()
				if err := a.Err(); err != nil {
					t.Errorf("the stream failed: %v", err)
				}
				if _, err := w.Client.Call(w.Ctx, "echo", m, nil); !errors.Is(err, kernel.ErrTooLarge) {
					t.Errorf("a call: %v", err)
				}
				if _, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Request: m}); !errors.Is(err, kernel.ErrTooLarge) {
					t.Errorf("an open: %v", err)
				}
				// One that is just short enough, but not with its metadata.
				fits := sized(100_000, 1)
				_, err := w.Client.Call(w.Ctx, "echo", fits, &kernel.CallOptions{Metadata: md(200)})
				wantCode(t, err, status.TooLarge)
				fits.Release()
				return
			}
			w.WantErr(b, status.TooLarge)
			w.WantErr(a, status.Aborted)
			_, err := w.Client.Call(w.Ctx, "echo", m, nil)
			if se := wantCode(t, err, status.TooLarge); !se.Remote {
				t.Errorf("a call: %+v", se)
			}
			s, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Request: m.Share()})
			if err == nil {
				_, _, err = s.Accepted(w.Ctx)
			}
			wantCode(t, err, status.TooLarge)
			if n := len(w.Client.Conns()); n != 1 || w.Srv.Stats().Accepted > 1 {
				t.Errorf("%d connections, %d were made", n, w.Srv.Stats().Accepted)
			}
			// What is longer by far ends the connection.
			far := sized(100_000+66<<10, 1)
			_, err = w.Client.Call(w.Ctx, "echo", far, nil)
			wantCode(t, err, status.ConnectionLost)
			far.Release()
			w.Call("echo", "again", "again")
		})
	}
}

// Streams beyond the server's limit are refused as not processed. There is room for
// twice as many as the limit says: nobody says when an end was read.
func TestBrpcStreamsAreLimited(t *testing.T) {
	w := overBrpc(t, &kernel.ServerOptions{Limits: kernel.Limits{MaxStreams: 4}}, nil)
	w.AskOffers()
	var as, bs []*kernel.Stream
	for range 8 {
		as = append(as, w.Open("x"))
		b, err := w.Offer().Accept(pool.Message{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		bs = append(bs, b)
	}
	_, _, err := w.Open("x").Accepted(w.Ctx)
	if se := wantCode(t, err, status.Refused); !se.NotProcessed {
		t.Errorf("%+v", se)
	}
	w.Srv.Handle("echo", echo)
	w.Call("echo", "calls are not among them", "calls are not among them")
	if err := as[0].Close(w.Ctx); err != nil {
		t.Fatal(err)
	}
	w.WantEOF(bs[0])
	as = append(as, w.Open("x"))
	b, err := w.Offer().Accept(pool.Message{}, nil)
	if err != nil {
		t.Fatalf("after one has ended: %v", err)
	}
	w.Cleanup(append(append(as[1:], bs[1:]...), b)...)
}

// What the peer could not take at all fails where it is set.
func TestBrpcLimitsOfMetadata(t *testing.T) {
	const most = 48 << 10
	limits := kernel.Limits{MaxMetadata: most}
	w := overBrpc(t, &kernel.ServerOptions{Limits: limits}, &kernel.ClientOptions{Limits: limits})
	w.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.SetHeader(md(most + 1)); !errors.Is(err, kernel.ErrMetadataTooLarge) {
			t.Errorf("a header too large: %v", err)
		}
		if err := s.SetHeader(md(most)); err != nil {
			t.Error(err)
		}
		return s.Send(ctx, text("%d", s.Metadata().Size()))
	})
	if _, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Metadata: md(most)}); !errors.Is(err, kernel.ErrMetadataTooLarge) {
		t.Errorf("metadata too large beside the method: %v", err)
	}
	s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Metadata: md(most - 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, header, err := s.Accepted(w.Ctx)
	if err != nil || header.Size() != most {
		t.Errorf("a header of %d bytes, %v", header.Size(), err)
	}
	w.Want(s, "%d", most-1)
	_ = s.Close(w.Ctx)
}

// A stream outlives the timeout of the request that opened it, as brpc's do.
func TestBrpcStreamsOutliveTheirRequest(t *testing.T) {
	inBrpcTarget(t, kernel.ServerOptions{}, func(tg *target, p *brpcPeer) {
		had := make(chan bool, 2)
		tg.Srv.Handle("outlives", func(ctx context.Context, s *kernel.Stream) error {
			_, before := ctx.Deadline()
			err := echo(ctx, s)
			_, after := ctx.Deadline()
			had <- before && !after
			return err
		})
		p.send(brpcAsk{method: "outlives", id: 1, streams: []int64{1}, timeout: 500}.bytes())
		a, _ := p.answer(1)
		if a == nil || len(a.streams()) != 1 {
			t.Fatalf("not accepted: %s", p.tail())
		}
		time.Sleep(time.Minute)
		to := a.streams()[0]
		p.send(strmData(to, 1, "late"))
		if got := p.texts(1); got != `["late"]` {
			t.Errorf("heard %s: %s", got, p.tail())
		}
		p.send(strmFrame(brpcClose, to, 1, false, ""))
		if !<-had {
			t.Error("the deadline was not that of the request alone")
		}
	})
}

// Handlers' errors are RSTs here, and no abuse however many they are.
func TestBrpcManyHandlersFail(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Srv.Handle("echo", echo)
	w.Srv.Handle("fails", func(ctx context.Context, s *kernel.Stream) error {
		_ = s.Send(ctx, text("x"))
		return &status.HandlerError{Code: status.NotFound, Reason: "no"}
	})
	good := w.Open("echo")
	w.Cleanup(good)
	for range 1500 {
		s := w.Open("fails")
		for m := range s.In() {
			m.Release()
		}
		wantCode(t, s.Err(), status.Aborted)
	}
	w.Send(good, "x")
	w.Want(good, "x")
}

// An answer with more metadata than the client takes fails its call, or its stream, and
// nothing else.
func TestBrpcAnswersWithTooMuchMetadata(t *testing.T) {
	w := overBrpc(t, nil, nil)
	w.Srv.Handle("m", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.SetHeader(md(17 << 10)); err != nil {
			t.Error(err)
		}
		return nil
	})
	w.Srv.Handle("echo", echo)
	s := w.Open("echo")
	w.Send(s, "one")
	w.Want(s, "one")
	m := text("x")
	_, err := w.Client.Call(w.Ctx, "m", m, nil)
	wantCode(t, err, status.TooLarge)
	m.Release()
	_, _, err = w.Open("m").Accepted(w.Ctx)
	wantCode(t, err, status.TooLarge)
	w.Call("echo", "two", "two")
	w.Send(s, "three")
	w.Want(s, "three")
	if n := s.Conn().Snapshot().OpenBytes; n != 0 {
		t.Errorf("%d bytes are kept", n)
	}
	w.Cleanup(s)
}

// A request has the length of any message, and comes with its open: it is held until
// somebody looks at it.
func TestBrpcRequestsThatWaitAreHeld(t *testing.T) {
	w := overBrpc(t, &kernel.ServerOptions{Limits: kernel.Limits{AssemblyBudget: 4 << 20}}, nil)
	w.AskOffers()
	var streams []*kernel.Stream
	for range 4 {
		s, err := w.Client.Open(w.Ctx, "m", &kernel.OpenOptions{Request: sized(1<<20, 'r')})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	held := func() int { return heldBy(w.Srv) }
	w.Eventually("the requests to be there", func() bool { return held() >= 4<<20 })
	_, _, err := w.Open("m").Accepted(w.Ctx)
	if se := wantCode(t, err, status.ResourceExhausted); !se.NotProcessed {
		t.Errorf("%+v", se)
	}
	o := w.Offer()
	m := testkit.RequestOf(t, o)
	if n := m.Len(); n != 1<<20 || held() > 3<<20+100 {
		t.Errorf("a request of %d bytes; %d are held", n, held())
	}
	m.Release()
	b, err := o.Accept(pool.Message{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams[1:] {
		o := w.Offer()
		o.Reject(&status.HandlerError{Code: status.Unavailable})
		_, _, err := s.Accepted(w.Ctx)
		wantCode(t, err, status.Unavailable)
	}
	w.Cleanup(streams[0], b)
}
