package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

func echo(ctx context.Context, s *kernel.Stream) error {
	for m, err := range s.All(ctx) {
		if err != nil {
			return err
		}
		if err := s.Send(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func tcp(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	srv, err := kernel.NewServer(so)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	client, err := kernel.Dial(context.Background(), ln.Addr().String(), co)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
	})
	return srv, client
}

func TestEcho(t *testing.T) {
	for name, start := range map[string]func(testing.TB, *kernel.ServerOptions, *kernel.ClientOptions) (*kernel.Server, *kernel.Client){
		"tcp": tcp, "memory": kerneltest.Start,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			srv, client := start(t, nil, nil)
			srv.Handle("echo", echo)
			s, err := client.Open(ctx, "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			sizes := []int{0, 1, 64, 4096, 4097, 65536, 65537, 1 << 20, 4 << 20, 3, 0}
			go func() {
				for i, n := range sizes {
					if err := s.Send(ctx, kernel.MessageOf(bytes.Repeat([]byte{byte(i + 1)}, n))); err != nil {
						t.Error("send", err)
					}
				}
				_ = s.CloseSend()
			}()
			for i, n := range sizes {
				m, err := s.Receive(ctx)
				if err != nil {
					t.Fatal(i, err)
				}
				if !bytes.Equal(m.Bytes(), bytes.Repeat([]byte{byte(i + 1)}, n)) {
					t.Fatalf("message %d of %d bytes differs (%d)", i, n, m.Len())
				}
				m.Release()
			}
			if _, err := s.Receive(ctx); !errors.Is(err, io.EOF) {
				t.Fatal("want EOF, got", err)
			}
			if err := s.Close(ctx); err != nil {
				t.Fatal("close", err)
			}
			reply, err := client.Call(ctx, "echo", kernel.MessageOf([]byte("hello")), nil)
			if err != nil || string(reply.Bytes()) != "hello" {
				t.Fatal(err, reply.Bytes())
			}
			if _, err := client.Call(ctx, "nothing", kernel.MessageOf(nil), nil); !errors.Is(err, kernel.ErrRefused) {
				t.Fatal(err)
			}
		})
	}
}

func TestChannels(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	srv, client := tcp(t, nil, nil)
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		for m := range s.In() {
			select {
			case s.Out() <- m:
			case <-s.SendDone():
				return s.Err()
			}
		}
		return s.Err()
	})
	s, err := client.Open(ctx, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 10000
	go func() {
		for i := range n {
			s.Out() <- kernel.MessageOf(fmt.Appendf(nil, "%d", i))
		}
		close(s.Out())
	}()
	i := 0
	for m := range s.In() {
		if string(m.Bytes()) != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", m.Bytes(), i)
		}
		i++
	}
	if i != n || s.Err() != nil {
		t.Fatal(i, s.Err())
	}
}
