package kernel_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// recorder passes on the connections that its listener accepts, too.
type recorder struct {
	net.Listener
	accepted chan net.Conn
}

func (r recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.accepted <- c
	}
	return c, err
}

// opaque hides what a connection is, so that it is not put on an event loop.
type opaque struct{ net.Conn }

// TestAClosedSocketIsNotACleanEnd: a peer that closes its socket in mid-stream, as a
// killed process does, ends the stream with an error that is not io.EOF, in whichever way
// the stream is read.
func TestAClosedSocketIsNotACleanEnd(t *testing.T) {
	dial := (&net.Dialer{}).DialContext
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"loop": dial,
		"net.Conn": func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return opaque{c}, err
		},
	} {
		for way, end := range map[string]func(context.Context, *kernel.Stream) error{
			"Receive": func(ctx context.Context, s *kernel.Stream) error {
				_, err := s.Receive(ctx)
				return err
			},
			"All": func(ctx context.Context, s *kernel.Stream) (last error) {
				for _, err := range s.All(ctx) {
					last = err
				}
				return last
			},
			"In": func(_ context.Context, s *kernel.Stream) error {
				for range s.In() {
				}
				return s.Err()
			},
		} {
			t.Run(name+"/"+way, func(t *testing.T) { closeSocket(t, dial, end) })
		}
	}
}

func closeSocket(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), end func(context.Context, *kernel.Stream) error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := kernel.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := recorder{ln, make(chan net.Conn, 1)}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), rec) }()
	offers := srv.Offers()
	client, err := kernel.Dial(ctx, ln.Addr().String(), &kernel.ClientOptions{Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
	}()
	s, err := client.Open(ctx, "anything", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (<-offers).Accept(pool.Message{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Accepted(ctx); err != nil {
		t.Fatal(err)
	}
	_ = (<-rec.accepted).Close()
	err = end(ctx, s)
	if err == nil || errors.Is(err, io.EOF) || !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) {
		t.Errorf("the end is %v (io.EOF: %v), want CONNECTION_LOST and not io.EOF", err, errors.Is(err, io.EOF))
	}
	if serr := s.Err(); serr == nil || errors.Is(serr, io.EOF) {
		t.Errorf("Err is %v (io.EOF: %v)", serr, errors.Is(serr, io.EOF))
	}
}
