package kernel_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Every connection of the process has a number of its own, which its Snapshot has too.
func TestConnsHaveNumbers(t *testing.T) {
	overNative(t, nil, nil, func(t *testing.T, w *world) {
		w.Eventually("the server to have a connection", func() bool { return len(w.Srv.Conns()) > 0 })
		seen := map[uint64]bool{}
		for _, c := range append(w.Srv.Conns(), w.Client.Conns()...) {
			if id := c.ID(); id == 0 || seen[id] || id != c.Snapshot().ID {
				t.Errorf("%d, in the snapshot %d, seen %v", id, c.Snapshot().ID, seen)
			}
			seen[c.ID()] = true
		}
	})
}

// A drained connection lets its streams go on, and ends with the last one.
func TestDrainOfOneConnection(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		s := w.Open("echo")
		w.Send(s, "before")
		w.Want(s, "before")
		c := w.Srv.Conns()[0]
		c.Drain()
		c.Drain() // does nothing more
		<-s.Conn().GoingAway()
		w.Send(s, "after")
		w.Want(s, "after")
		if err := c.Err(); err != nil {
			t.Errorf("it ended before its stream: %v", err)
		}
		ok(t, s.CloseSend())
		w.WantEOF(s)
		<-c.Done()
		if !errors.Is(c.Err(), kernel.ErrGoingAway) {
			t.Errorf("ended because of %v", c.Err())
		}
		reply, err := w.Client.Call(context.Background(), "echo", pool.MessageOf([]byte("again")), nil)
		if err != nil || string(reply.Bytes()) != "again" {
			t.Errorf("on the next connection: %q, %v", reply.Bytes(), err)
		}
		reply.Release()
	})
}

// Options have the defaults, and who changes what they return changes nothing.
func TestOptions(t *testing.T) {
	var hs kernel.Handlers
	srv, err := kernel.NewServer(&kernel.ServerOptions{Handlers: &hs, Limits: kernel.Limits{MaxStreams: 7}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	client, err := kernel.NewClient("127.0.0.1:1", &kernel.ClientOptions{Token: []byte("secret"), Conns: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	o := srv.Options()
	if o.Handlers != &hs || o.Limits.MaxStreams != 7 || o.Limits.MaxMessage == 0 || len(o.Protocols) != 1 || o.Logger == nil {
		t.Errorf("of the server: %+v", o)
	}
	o.Limits.MaxStreams = 8
	if n := srv.Options().Limits.MaxStreams; n != 7 {
		t.Errorf("MaxStreams has become %d", n)
	}
	p := client.Options()
	if p.Handlers == nil || p.Conns != 3 || string(p.Token) != "secret" || p.Backoff.First == 0 || p.Dial == nil {
		t.Errorf("of the client: %+v", p)
	}
}

// Who looks at a stream that this side has refused finds the code that it was refused with.
func TestRefusedStreamsHaveACode(t *testing.T) {
	ended := make(chan kernel.StreamInfo, 1)
	so := &kernel.ServerOptions{Observer: endsSeen(ended)}
	inBubble(t, so, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("fail", func(context.Context, *kernel.Stream) error {
			return &status.HandlerError{Code: status.NotFound, Reason: "no such thing"}
		})
		_, err := w.Client.Call(context.Background(), "fail", pool.Message{}, nil)
		wantCode(t, err, status.NotFound)
		if i := <-ended; i.Code != status.NotFound || i.State != "closed" {
			t.Errorf("%+v", i)
		}
	})
}

// endsSeen are the last Snapshots of streams.
type endsSeen chan kernel.StreamInfo

func (endsSeen) ConnBegun(*kernel.Conn)                              {}
func (endsSeen) ConnEnded(*kernel.Conn, kernel.ConnInfo)             {}
func (endsSeen) StreamBegun(*kernel.Stream)                          {}
func (e endsSeen) StreamEnded(_ *kernel.Stream, i kernel.StreamInfo) { e <- i }
