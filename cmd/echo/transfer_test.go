package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// dishonest is an echo in which the message at 5 is passed through wrong.
func dishonest(wrong func(m pool.Message) []pool.Message) func(context.Context, *kernel.Stream) error {
	return func(ctx context.Context, s *kernel.Stream) error {
		n := 0
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			out := []pool.Message{m}
			if n++; n == 5 {
				out = wrong(m)
			}
			for _, m := range out {
				if err := s.Send(ctx, m); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func exchangeWith(t *testing.T, h func(context.Context, *kernel.Stream) error, p part) (*counts, error) {
	t.Helper()
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Handle(methodEcho, h)
	group := newGroup(t.Context())
	s, err := client.Open(group.ctx, methodEcho, nil)
	if err != nil {
		t.Fatal(err)
	}
	var n counts
	group.exchange(&wires()[0], s, p, &n)
	return &n, group.wait()
}

func TestExchangeAcceptsAnEcho(t *testing.T) {
	for name, h := range map[string]func(context.Context, *kernel.Stream) error{"echo": echo, "select": echoSelect} {
		t.Run(name, func(t *testing.T) {
			n, err := exchangeWith(t, h, part{generated(1), mixed(0, 3_000_000, 1)})
			if err != nil || n.bytes.Load() != 3_000_000 {
				t.Errorf("%d bytes, error %v", n.bytes.Load(), err)
			}
		})
	}
}

func TestExchangeNoticesEveryKindOfError(t *testing.T) {
	for name, c := range map[string]struct {
		wrong func(m pool.Message) []pool.Message
		want  string
	}{
		"lost": {func(pool.Message) []pool.Message { return nil }, "message 4: sent"},
		"doubled": {func(m pool.Message) []pool.Message {
			return []pool.Message{m.Share(), m}
		}, "message 5: sent"},
		"changed": {func(m pool.Message) []pool.Message {
			p := append([]byte(nil), m.Bytes()...)
			p[len(p)-1] ^= 1
			return []pool.Message{pool.MessageOf(p)}
		}, "message 4: sent"},
		"cut in two": {func(m pool.Message) []pool.Message {
			p := m.Bytes()
			return []pool.Message{pool.Copy(p[:10]), pool.Copy(p[10:])}
		}, "message 4: sent 100 bytes from 400 on, and 10 other bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := exchangeWith(t, dishonest(c.wrong), part{generated(1), repeated(0, 100, 20)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestExchangeNoticesAWrongEnd(t *testing.T) {
	twenty := part{generated(1), repeated(0, 100, 20)}
	extra := func(ctx context.Context, s *kernel.Stream) error {
		if err := echo(ctx, s); err != nil {
			return err
		}
		return s.Send(ctx, pool.Copy([]byte("one more")))
	}
	if _, err := exchangeWith(t, extra, twenty); err == nil || !strings.Contains(err.Error(), "8 bytes came back that were not sent") {
		t.Errorf("one too many: error %v", err)
	}
	five := func(ctx context.Context, s *kernel.Stream) error {
		for range 5 {
			m, err := s.Receive(ctx)
			if err == nil {
				err = s.Send(ctx, m)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := exchangeWith(t, five, twenty); err == nil {
		t.Error("five of twenty: no error")
	}
	broken := func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.DataLoss, Reason: "no idea"}
	}
	if _, err := exchangeWith(t, broken, twenty); !errors.Is(err, &status.StreamError{Code: status.DataLoss}) {
		t.Errorf("a handler's error: %v", err)
	}
}

func TestATruncatedFileIsNoticed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, generated(1).bytes(5000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, size, err := openFile(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(name, 2500); err != nil {
		t.Fatal(err)
	}
	if _, err := exchangeWith(t, echo, part{f, even(0, size, 1000)}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("error %v", err)
	}
}

// severed closes the connection that its stream came by, without a notice, as
// a machine does that loses its power.
type severed struct {
	net.Listener
	accepted chan net.Conn
}

func (l severed) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- c
	}
	return c, err
}

func TestALostServerUnderLoadIsOneClearError(t *testing.T) {
	srv, err := kernel.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := severed{tcp, make(chan net.Conn, 1)}
	srv.Handle(methodEcho, func(ctx context.Context, s *kernel.Stream) error {
		for n := 0; ; n++ {
			m, err := s.Receive(ctx)
			if err == nil {
				err = s.Send(ctx, m)
			}
			if err != nil {
				return err
			}
			if n == 1000 {
				return (<-ln.accepted).Close()
			}
		}
	})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	r := runEcho(t, "", "call", "-addr", tcp.Addr().String(), "-count", "1000000", "-size", "100")
	r.wantError(t, exitFailed, "lost the connection to .* in mid-stream: ")
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-served
}
