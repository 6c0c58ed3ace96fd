package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Authenticate makes an identity of what the peer presents. It runs before the peer can open
// a stream; handlers ask the connection or the offer for its result.
func ExampleIdentity() {
	ctx := context.Background()
	type user struct{ name string }
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
			name, ok := strings.CutPrefix(string(p.Token), "secret of ")
			if !ok {
				return nil, &status.HandlerError{Code: status.Unauthenticated, Reason: "no such token"}
			}
			return user{name}, nil // p.TLS has the client's certificate, if there is one
		},
		Authorize: func(_ context.Context, id kernel.Identity, method string, _ metadata.MD) error {
			if method == "admin" && id.(user).name != "root" {
				return errors.New("not for everybody") // CodePermissionDenied
			}
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	whoami := func(ctx context.Context, s *kernel.Stream) error {
		id := s.Conn().Identity().(user)
		fmt.Println("called from", s.Conn().Peer().Addr.Network())
		return s.Send(ctx, say(id.name))
	}
	srv.Handle("whoami", whoami)
	srv.Handle("admin", whoami)
	client, stop := start(srv, &kernel.ClientOptions{Token: []byte("secret of ann")})
	defer stop()

	for _, method := range []string{"whoami", "admin"} {
		reply, err := client.Call(ctx, method, pool.Message{}, nil)
		code, _ := status.Of(err)
		fmt.Printf("%q %v\n", reply.Bytes(), code)
	}
	// Output:
	// called from pipe
	// "ann" OK
	// "" PERMISSION_DENIED
}

// A Conn is the same on both sides. Streams opened on it stay on it, and fail with it.
func ExampleConn() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("hold", func(ctx context.Context, s *kernel.Stream) error {
		s.In() // accepts
		<-s.Context().Done()
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	c, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := c.Open(ctx, "hold", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	more, err := c.OpenN(ctx, "hold", nil, kernel.StreamOptions{NoReceive: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, _ = s.Accepted(ctx)
	same := c.Stream(s.ID()) // the stream with that number
	fmt.Println(c.Streams(), "streams,", same == s, more[0].Conn() == c)
	i := c.Snapshot()
	fmt.Println(i.Protocol, i.State, i.Client, i.Streams)

	_ = c.Close()
	<-c.Done()
	fmt.Println(c.Err())
	fmt.Println(errors.Is(s.Err(), &status.StreamError{Code: status.ConnectionLost}))
	fmt.Println(c.Snapshot().State)
	// Output:
	// 2 streams, true true
	// sluice open true 2
	// sluice: close pipe: use of closed network connection
	// true
	// closed
}

// A handler that could go on for ever comes to its end when the server drains.
func ExampleConn_GoingAway() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("ticks", func(ctx context.Context, s *kernel.Stream) error {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := s.Send(ctx, say("tick")); err != nil {
					return err
				}
			case <-s.GoingAway(): // of a stream: that of its connection
				return s.Send(ctx, say("come back to another server"))
			}
		}
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "ticks", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := s.Receive(ctx)
	fmt.Printf("%s %v\n", m.Bytes(), err)
	down := make(chan error, 1)
	go func() { down <- srv.Shutdown(ctx) }()
	<-srv.Draining()
	<-s.Conn().GoingAway()
	last := ""
	for m, err := range s.All(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		last = string(m.Bytes())
	}
	fmt.Println(last)
	fmt.Println(s.Close(ctx), <-down)
	// Output:
	// tick <nil>
	// come back to another server
	// <nil> <nil>
}

// Trace shows the frames of a connection as they come and go, without what is in them.
func ExampleConn_Trace() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := newServer()
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	defer stop()

	c, err := client.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	sent := make(chan string, 16)
	traced := make(chan struct{})
	go func() {
		defer close(traced)
		c.Trace(ctx, func(f conn.FrameInfo) {
			if f.Sent && f.Kind == "DATA" {
				sent <- fmt.Sprintf("stream %d: %d bytes", f.Stream, f.Length)
			}
		})
	}()
	for c.Snapshot().Traces == 0 {
		time.Sleep(time.Millisecond)
	}
	reply, err := c.Call(ctx, "upper", say("hello"), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	fmt.Println(<-sent)
	cancel()
	<-traced
	// Output:
	// HELLO <nil>
	// stream 1: 5 bytes
}

// The snapshot of a stream says what it waits for.
func ExampleBlockedOn() {
	look := func(i kernel.StreamInfo) string {
		switch i.BlockedOn {
		case kernel.BlockedOnNothing:
			return "nothing waits"
		case kernel.BlockedOnStreamCredit:
			return "the peer's application does not read this stream"
		case kernel.BlockedOnConnCredit:
			return "the peer's application does not read other streams of the connection"
		case kernel.BlockedOnQueue:
			return "Limits.OutQueue bytes of the connection wait to be written"
		case kernel.BlockedOnSocket:
			return "the peer's host does not read, or the network is slow"
		case kernel.BlockedOnReader:
			return "this side's application does not read"
		}
		return "?"
	}
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()
	s, err := client.Open(ctx, "any", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(look(s.Snapshot()))
	peer, err := (<-offers).Accept(pool.Message{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Send(ctx, say("read me"))
	for peer.Snapshot().MailboxMessages == 0 {
		time.Sleep(time.Millisecond) // not there yet
	}
	fmt.Println(look(peer.Snapshot()))
	// Output:
	// nothing waits
	// this side's application does not read
}
