package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/data"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// dishonest is an echo in which the message at 5 is passed through wrong.
func dishonest(wrong func(m pool.Message) []pool.Message) kernel.Handler {
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

// transferTo sends a part to a handler.
func transferTo(t *testing.T, h kernel.Handler, p data.Part) (*transfer, error) {
	t.Helper()
	srv, client := kerneltest.Start(t, nil, nil)
	srv.Handle(methodEcho, h)
	tr := new(transfer)
	return tr, tr.run(t.Context(), client, methodEcho, []data.Part{p})
}

func TestTransferAcceptsAnEcho(t *testing.T) {
	for name, h := range map[string]kernel.Handler{"echo": echo, "select": echoSelect} {
		t.Run(name, func(t *testing.T) {
			n, err := transferTo(t, h, data.Mixed(data.Generated(1), 3_000_000, 1, 1)[0])
			if err != nil || n.Bytes.Load() != 3_000_000 {
				t.Errorf("%d bytes, error %v", n.Bytes.Load(), err)
			}
		})
	}
}

func TestTransferNoticesEveryKindOfError(t *testing.T) {
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
			_, err := transferTo(t, dishonest(c.wrong), data.Repeated(1, 100, 20)[0])
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestTransferNoticesAWrongEnd(t *testing.T) {
	twenty := data.Repeated(1, 100, 20)[0]
	extra := func(ctx context.Context, s *kernel.Stream) error {
		if err := echo(ctx, s); err != nil {
			return err
		}
		return s.Send(ctx, pool.Copy([]byte("one more")))
	}
	if _, err := transferTo(t, extra, twenty); err == nil || !strings.Contains(err.Error(), "8 bytes came back that were not sent") {
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
	if _, err := transferTo(t, five, twenty); err == nil {
		t.Error("five of twenty: no error")
	}
	broken := func(context.Context, *kernel.Stream) error {
		return &status.HandlerError{Code: status.DataLoss, Reason: "no idea"}
	}
	if _, err := transferTo(t, broken, twenty); !errors.Is(err, &status.StreamError{Code: status.DataLoss}) {
		t.Errorf("a handler's error: %v", err)
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
	r.wantError(t, cli.ExitFailed, "lost the connection to .* in mid-stream: ")
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-served
}
