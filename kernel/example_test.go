package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The server and the client of an example are in memory. A program listens with
// Server.ListenAndServe, and connects with Dial.
var (
	newServer = testkit.ExampleServer
	start     = testkit.StartExample
)

func say(s string) pool.Message { return pool.MessageOf([]byte(s)) }

// A handler runs in a goroutine of its own. When it returns nil, both halves of
// its stream end in order.
func ExampleServer_Handle() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			if err := s.Send(ctx, m); err != nil {
				return err
			}
		}
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "echo", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Send(ctx, say("hello"))
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	fmt.Println(s.Close(ctx))
	// Output:
	// hello <nil>
	// <nil>
}

// A stream is compressed by an option, and one of its messages can do without. The reader
// sees no difference.
func ExampleStreamOptions_compression() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upload", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			fmt.Println(m.Len())
			m.Release()
		}
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "upload", &kernel.OpenOptions{Stream: kernel.StreamOptions{Compression: pool.Zstd}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Send(ctx, say(strings.Repeat("much of the same, ", 1000)))
	picture := say(strings.Repeat("compressed already", 100))
	picture.SetCompression(pool.NoCompression)
	_ = s.Send(ctx, picture)
	fmt.Println(s.Close(ctx))
	// Output:
	// 18000
	// 1800
	// <nil>
}

// An offer lets a handler look at the request before there is a stream, answer
// it, and keep the stream when it returns.
func ExampleServer_HandleOffer() {
	ctx := context.Background()
	srv := newServer()
	srv.HandleOffer("report", func(ctx context.Context, o *kernel.Offer) error {
		token, err := o.Request(ctx)
		if err != nil {
			return err
		}
		if string(token.Bytes()) != "token 7" {
			o.Reject(&status.HandlerError{Code: status.PermissionDenied, Reason: "unknown token"})
			return nil
		}
		s, err := o.Accept(say("accepted"), nil)
		if err != nil {
			return err
		}
		return s.CloseSend()
	})
	client, stop := start(srv, nil)
	defer stop()

	for _, token := range []string{"token 1", "token 7"} {
		s, err := client.Open(ctx, "report", &kernel.OpenOptions{Request: say(token)})
		if err != nil {
			fmt.Println(err)
			return
		}
		reply, _, err := s.Accepted(ctx)
		var refused *status.StreamError
		if errors.As(err, &refused) {
			fmt.Println(token+":", refused.Code, refused.Reason)
			continue
		}
		fmt.Printf("%s: %s\n", token, reply.Bytes())
	}
	// Output:
	// token 1: PERMISSION_DENIED unknown token
	// token 7: accepted
}

// Offers yields the opens that no handler is registered for to the goroutine that receives
// them: one goroutine can accept any number of streams.
func ExampleServer_Offers() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	go func() {
		for range 3 {
			o := <-offers
			s, err := o.Accept(say("accepted "+o.Method()), nil)
			if err != nil {
				continue
			}
			_ = s.CloseSend()
		}
	}()
	for _, method := range []string{"prices", "orders", "alerts"} {
		s, err := client.Open(ctx, method, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		reply, _, err := s.Accepted(ctx)
		fmt.Printf("%s %v\n", reply.Bytes(), err)
	}
	// Output:
	// accepted prices <nil>
	// accepted orders <nil>
	// accepted alerts <nil>
}

// upper is a handler that answers each message in capitals.
func upper(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		for i, c := range m.Bytes() {
			if 'a' <= c && c <= 'z' {
				m.Bytes()[i] = c - 'a' + 'A'
			}
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Open returns at once. Messages may follow at once too; they arrive after the
// request, in order.
func ExampleClient_Open() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // bounds the stream's life
	defer cancel()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range []string{"one", "two"} {
		if err := s.Send(ctx, say(w)); err != nil {
			fmt.Println(err)
		}
	}
	_ = s.CloseSend()
	for m, err := range s.All(ctx) {
		fmt.Printf("%s %v\n", m.Bytes(), err)
	}
	// Output:
	// ONE <nil>
	// TWO <nil>
}

// Several streams can belong to one request: here one for data and one for
// progress. They are accepted, or refused, together.
func ExampleClient_OpenN() {
	ctx := context.Background()
	srv := newServer()
	srv.HandleOffer("upload", func(ctx context.Context, o *kernel.Offer) error {
		ss, err := o.AcceptAll(pool.Message{}, nil)
		if err != nil {
			return err
		}
		data, progress := ss[0], ss[1]
		n := 0
		for m, err := range data.All(ctx) {
			if err != nil {
				return err
			}
			n += m.Len()
			m.Release()
			if err := progress.Send(ctx, say(fmt.Sprint(n, " bytes"))); err != nil {
				return err
			}
		}
		return progress.CloseSend()
	})
	client, stop := start(srv, nil)
	defer stop()

	ss, err := client.OpenN(ctx, "upload", nil, kernel.StreamOptions{}, kernel.StreamOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	data, progress := ss[0], ss[1]
	_ = data.Send(ctx, say("first"))
	_ = data.Send(ctx, say("second"))
	_ = data.CloseSend()
	for m, err := range progress.All(ctx) {
		fmt.Printf("%s %v\n", m.Bytes(), err)
	}
	// Output:
	// 5 bytes <nil>
	// 11 bytes <nil>
}

// A call is the short form of a stream with one message each way.
func ExampleClient_Call() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	srv.Handle("fail", func(ctx context.Context, s *kernel.Stream) error {
		return &status.HandlerError{Code: status.NotFound, Reason: "nobody here"}
	})
	client, stop := start(srv, nil)
	defer stop()

	reply, err := client.Call(ctx, "upper", say("hello"), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)

	_, err = client.Call(ctx, "fail", say("hello"), nil)
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.NotFound}))
	// Output:
	// HELLO <nil>
	// true
}

// A connection is the same thing on both sides. Here the server opens a stream
// towards its client.
func ExampleClient_Conn() {
	ctx := context.Background()
	greeted := make(chan string)
	srv, err := kernel.NewServer(&kernel.ServerOptions{OnConn: func(c *kernel.Conn) {
		reply, err := c.Call(ctx, "who are you", pool.Message{}, nil)
		greeted <- fmt.Sprintf("%s %v", reply.Bytes(), err)
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	var handlers kernel.Handlers
	handlers.Handle("who are you", func(ctx context.Context, s *kernel.Stream) error { return s.Send(ctx, say("a client")) })
	client, stop := start(srv, &kernel.ClientOptions{Handlers: &handlers})
	defer stop()

	fmt.Println(<-greeted)
	c, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Protocol(), c.Err())
	// Output:
	// a client <nil>
	// sluice <nil>
}

// counter is a handler that sends as many messages as its request says.
func counter(ctx context.Context, s *kernel.Stream) error {
	request, err := s.Request(ctx)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscan(string(request.Bytes()), &n); err != nil {
		return &status.HandlerError{Code: status.InvalidArgument, Reason: err.Error()}
	}
	for i := range n {
		if err := s.Send(ctx, say(fmt.Sprint(i))); err != nil {
			return err
		}
	}
	return nil
}

// All yields every message, and then the error if the stream did not end in
// order: it can't be forgotten.
func ExampleStream_All() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("count", counter)
	client, stop := start(srv, nil)
	defer stop()

	for _, request := range []string{"3", "three"} {
		s, err := client.Open(ctx, "count", &kernel.OpenOptions{Request: say(request)})
		if err != nil {
			fmt.Println(err)
			return
		}
		for m, err := range s.All(ctx) {
			var se *status.StreamError
			if errors.As(err, &se) {
				fmt.Println(se.Code)
				break
			}
			fmt.Printf("%s\n", m.Bytes())
			m.Release()
		}
	}
	// Output:
	// 0
	// 1
	// 2
	// INVALID_ARGUMENT
}

// In is closed after the last message; Err then tells an end in order from any
// other.
func ExampleStream_In() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("count", counter)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "count", &kernel.OpenOptions{Request: say("2")})
	if err != nil {
		fmt.Println(err)
		return
	}
	timeout := time.After(time.Minute)
	for in := s.In(); in != nil; {
		select {
		case m, ok := <-in:
			if !ok {
				in = nil
				continue
			}
			fmt.Printf("%s\n", m.Bytes())
			m.Release()
		case <-timeout:
			s.Abort(status.DeadlineExceeded, "too slow")
		}
	}
	fmt.Println(s.Err())
	// Output:
	// 0
	// 1
	// <nil>
}

// The stream takes messages from Out while it has credit. Nothing takes from it
// once the sending half has ended, so each send needs another way out.
func ExampleStream_Out() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	m := say("through a channel")
	select {
	case s.Out() <- m:
	case <-s.SendDone():
		m.Release()
		fmt.Println(s.Err())
	}
	close(s.Out()) // as CloseSend; only a sole sender may do it
	for m := range s.In() {
		fmt.Printf("%s\n", m.Bytes())
	}
	fmt.Println(s.Err())
	// Output:
	// THROUGH A CHANNEL
	// <nil>
}

// A batch is what has arrived, up to MaxBatch messages: one channel operation for
// all of them.
func ExampleStream_Batches() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("count", counter)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "count", &kernel.OpenOptions{
		Request: say("1000"),
		Stream:  kernel.StreamOptions{MaxBatch: 64},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	messages, largest := 0, 0
	for b := range s.Batches() {
		messages += b.Len()
		largest = max(largest, b.Len())
		b.Release() // and the messages in it
	}
	fmt.Println(messages, largest <= 64, s.Err())
	// Output: 1000 true <nil>
}

// Writable makes sending a case of a select: a slot is the right to send one
// message, and is offered only while there is credit.
func ExampleStream_Writable() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "slow", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// The other side lets two messages of 8 bytes be unread; each costs 32 more.
	peer, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{Window: 80})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, _, err := s.Accepted(ctx); err != nil {
		fmt.Println(err)
		return
	}
	// Before the acceptance the opener may use the initial credit; fill the rest.
	for s.TrySend(say("12345678")) == nil {
	}
	select {
	case slot := <-s.Writable():
		slot.Cancel()
		fmt.Println("credit")
	default:
		fmt.Println("no credit")
	}
	go func() {
		for m, err := range peer.All(ctx) {
			if err != nil {
				return
			}
			m.Release()
		}
	}()
	slot := <-s.Writable() // as soon as the peer has read
	fmt.Println(slot.Send(say("12345678")))
	fmt.Println(slot.Send(say("again")))
	// Output:
	// no credit
	// <nil>
	// sluice: slot already used or cancelled
}

// TrySend never waits.
func ExampleStream_TrySend() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "stuck", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := (<-offers).Accept(pool.Message{}, nil); err != nil { // and never read
		fmt.Println(err)
		return
	}
	for {
		m := pool.New(1 << 10)
		if err := s.TrySend(m); err != nil {
			m.Release() // still ours
			fmt.Println(errors.Is(err, kernel.ErrWouldBlock))
			break
		}
	}
	// Output: true
}

// Idle offers the time of the last message while there is silence.
func ExampleStream_Idle() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "quiet", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	peer, err := (<-offers).Accept(pool.Message{}, &kernel.StreamOptions{IdleTimeout: 20 * time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	select {
	case m := <-peer.In():
		fmt.Printf("%s\n", m.Bytes())
	case since := <-peer.Idle():
		fmt.Println("silent for 20 ms or more:", time.Since(since) >= 20*time.Millisecond)
		peer.Abort(status.IdleTimeout, "nothing to do")
	}
	_, err = s.Receive(ctx)
	fmt.Println(errors.Is(err, &status.StreamError{Code: status.IdleTimeout}))
	// Output:
	// silent for 20 ms or more: true
	// true
}

// CloseSend says that there is no more to come. The other half goes on.
func ExampleStream_CloseSend() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("sum", func(ctx context.Context, s *kernel.Stream) error {
		n := 0
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			n += m.Len()
			m.Release()
		}
		return s.Send(ctx, say(fmt.Sprint(n, " bytes in all")))
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "sum", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range []string{"a", "bc", "def"} {
		_ = s.Send(ctx, say(w))
	}
	_ = s.CloseSend()
	fmt.Println(errors.Is(s.Send(ctx, say("late")), kernel.ErrSendClosed))
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	// Output:
	// true
	// 6 bytes in all <nil>
}

// CloseReceive tells the peer to stop. Nothing has failed by that.
func ExampleStream_CloseReceive() {
	ctx := context.Background()
	stopped := make(chan error, 1)
	srv := newServer()
	srv.Handle("forever", func(ctx context.Context, s *kernel.Stream) error {
		for {
			if err := s.Send(ctx, say("more")); err != nil {
				stopped <- err
				return nil
			}
		}
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "forever", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	s.CloseReceive(status.OK)
	fmt.Println(errors.Is(<-stopped, kernel.ErrStopped))
	fmt.Println(s.Err())
	// Output:
	// more <nil>
	// true
	// <nil>
}

// Close ends both halves and waits until the peer's application knows.
func ExampleStream_Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Send(ctx, say("the last word"))
	fmt.Println(s.Close(ctx))
	<-s.Done()
	fmt.Println(s.Close(ctx)) // any number of calls end alike
	// Output:
	// <nil>
	// <nil>
}

// A header travels with the acceptance. It must be set before the handler uses
// its stream.
func ExampleStream_SetHeader() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("versioned", func(ctx context.Context, s *kernel.Stream) error {
		if err := s.SetHeader(metadata.MD{{Key: "version", Value: "7"}}); err != nil {
			return err
		}
		return s.Send(ctx, say("body"))
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "versioned", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, header, err := s.Accepted(ctx)
	fmt.Println(header.Get("version"), err)
	fmt.Println(s.SetHeader(nil) == kernel.ErrHeaderSent) // only the accepting side has one
	// Output:
	// 7 <nil>
	// true
}

// A trailer travels with the end.
func ExampleStream_SetTrailer() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("work", func(ctx context.Context, s *kernel.Stream) error {
		s.SetTrailer(metadata.MD{{Key: "cost", Value: "42"}})
		return s.Send(ctx, say("done"))
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "work", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for m := range s.In() {
		fmt.Printf("%s\n", m.Bytes())
	}
	fmt.Println(s.Trailer().Get("cost"))
	// Output:
	// done
	// 42
}

// Accepted waits for the answer. A refusal says whether anybody looked at the
// stream: if not, it is safe to try again.
func ExampleStream_Accepted() {
	ctx := context.Background()
	client, stop := start(newServer(), nil)
	defer stop()

	s, err := client.Open(ctx, "nothing of that name", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, err = s.Accepted(ctx)
	var se *status.StreamError
	if errors.Is(err, kernel.ErrRefused) && errors.As(err, &se) {
		fmt.Println(se.Code, "not processed:", se.NotProcessed)
	}
	// Output: UNIMPLEMENTED not processed: true
}

// Metadata travels with the open. Keys may repeat.
func ExampleStream_Metadata() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("tagged", func(ctx context.Context, s *kernel.Stream) error {
		md := s.Metadata()
		return s.Send(ctx, say(fmt.Sprint(md.Get("user"), md.Values("tag"))))
	})
	client, stop := start(srv, nil)
	defer stop()

	var md metadata.MD
	md.Add("User", "ann")
	md.Add("tag", "red")
	md.Add("tag", "blue")
	s, err := client.Open(ctx, "tagged", &kernel.OpenOptions{Metadata: md})
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	// Output: ann[red blue] <nil>
}

// Abort ends both halves now, and tells the peer why.
func ExampleStream_Abort() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "doomed", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	peer, err := (<-offers).Accept(pool.Message{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	peer.Abort(status.FirstAppCode+1, "changed my mind")
	_, err = s.Receive(ctx)
	var se *status.StreamError
	if errors.As(err, &se) {
		fmt.Println(se.Code, se.Reason, se.Remote)
	}
	// Output: CODE_257 changed my mind true
}

// Shutdown lets the streams that are open finish. Opens that come meanwhile are
// refused as not processed.
func ExampleServer_Shutdown() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, _, err := s.Accepted(ctx); err != nil {
		fmt.Println(err)
		return
	}
	down := make(chan error)
	go func() { down <- srv.Shutdown(ctx) }()
	_ = s.Send(ctx, say("still here"))
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	fmt.Println(s.Close(ctx))
	fmt.Println(<-down)
	// Output:
	// STILL HERE <nil>
	// <nil>
	// <nil>
}

// Many small messages take least when they are sent from memory of the program's own, and
// received in memory of the stream's: what ReceiveBatch returns is valid until it is called again.
func ExampleStream_ReceiveBatch() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("count", func(ctx context.Context, s *kernel.Stream) error {
		for i := range 1000 {
			if err := s.SendCopy(ctx, fmt.Appendf(nil, "%d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "count", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	messages, bytes := 0, 0
	for {
		lent, err := s.ReceiveBatch(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, p := range lent {
			messages++
			bytes += len(p)
		}
	}
	fmt.Println(messages, bytes)
	// Output: 1000 2890
}
