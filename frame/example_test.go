package frame_test

import (
	"context"
	"fmt"
	"io"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// The client of an example is in memory.
var start = testkit.StartExample

func say(s string) pool.Message { return pool.MessageOf([]byte(s)) }

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

// A counted protocol is the native one, with a count of its handshakes.
type counted struct {
	frame.Protocol
	handshakes *int
}

func (c counted) Name() string { return "counted" }

func (c counted) Detect(first []byte) frame.Verdict { return c.Protocol.Detect(first) }

func (c counted) Caps() frame.Caps { return c.Protocol.Caps() }

func (c counted) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	*c.handshakes++
	return c.Protocol.Handshake(ctx, rw, g)
}

// A Protocol is what a server finds by a connection's first bytes, and what a client's target
// names. This one wraps the native protocol.
func ExampleProtocol() {
	ctx := context.Background()
	n := 0
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: []frame.Protocol{counted{native.Protocol{}, &n}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Handle("upper", upper)
	client, stop := start(srv, nil)
	reply, err := client.Call(ctx, "upper", say("hello"), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	stop()
	fmt.Println(n, "handshakes")
	// Output:
	// HELLO <nil>
	// 1 handshakes
}
