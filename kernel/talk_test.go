package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// What follows is a session whose bytes tests cut and change on their way: one stream,
// "talk", on which the server sends back what it receives.

// talkSizes are the messages of a session, some 2 KiB each way.
var talkSizes = []int{0, 1, 10, 300, 64, 5, 700, 0, 200, 33, 400, 100}

func talkMessage(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, talkSizes[i]) }

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// pathTo returns what dials ln, once, over a path of which pass decides what gets
// through, towards the server (up) and back, and when the path is cut.
func pathTo(ln *kerneltest.Listener, pass func(p []byte, up bool) (through []byte, cut bool)) dialer {
	relay := func(dst, src net.Conn, up bool) {
		p := make([]byte, 4<<10)
		for {
			n, err := src.Read(p)
			through, cut := pass(p[:n], up)
			if len(through) > 0 {
				_, _ = dst.Write(through)
			}
			if cut || err != nil {
				_ = dst.Close()
				_ = src.Close()
				return
			}
		}
	}
	dials := 0
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, syscall.ECONNREFUSED
		}
		near, client := conn.Pipe()
		far, err := ln.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		go relay(far, near, true)
		go relay(near, far, false)
		return client, nil
	}
}

// A reader's account of a stream.
type account struct {
	n   int   // messages, each checked
	bad error // what was wrong with one
	end error
}

// take reads s to its end, handing each message to also.
func take(ctx context.Context, s *kernel.Stream, also func(m pool.Message) error) (a account) {
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			a.end = err
			return a
		}
		if a.n >= len(talkSizes) || !bytes.Equal(m.Bytes(), talkMessage(a.n)) {
			a.bad = fmt.Errorf("message %d is %q", a.n, m.Bytes())
		}
		a.n++
		if also(m) != nil {
			m.Release()
		}
	}
}

// check tells what is wrong with an account: a message that was never sent, or a
// clean end that is none.
func (a account) check() error {
	switch {
	case a.bad != nil:
		return a.bad
	case errors.Is(a.end, io.EOF) && a.n < len(talkSizes):
		return fmt.Errorf("a clean end after %d of %d messages", a.n, len(talkSizes))
	case a.end == nil:
		return errors.New("no end")
	}
	return nil
}

// exchange sends every message on s and returns an account of what comes back.
func exchange(ctx context.Context, s *kernel.Stream) account {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range talkSizes {
			if m := pool.Copy(talkMessage(i)); s.Send(ctx, m) != nil {
				m.Release()
				return
			}
			time.Sleep(time.Millisecond) // of the bubble: one record each, a session of small writes
		}
		_ = s.CloseSend()
	}()
	a := take(context.Background(), s, func(m pool.Message) error {
		m.Release()
		return nil
	})
	<-sent
	return a
}

// A talkServer is the server of one session.
type talkServer struct {
	srv     *kernel.Server
	ln      *kerneltest.Listener
	served  chan error
	account chan account
}

func serveTalk(o *kernel.ServerOptions) (*talkServer, error) {
	srv, err := kernel.NewServer(o)
	if err != nil {
		return nil, err
	}
	t := &talkServer{srv, kerneltest.Listen(), make(chan error, 1), make(chan account, 1)}
	srv.Handle("talk", func(ctx context.Context, s *kernel.Stream) error {
		a := take(ctx, s, func(m pool.Message) error { return s.Send(ctx, m) })
		t.account <- a
		if errors.Is(a.end, io.EOF) {
			return nil
		}
		return a.end
	})
	go func() { t.served <- srv.Serve(context.Background(), t.ln) }()
	return t, nil
}

// check closes the server and tells what is wrong with its account of the session, or
// with the client's.
func (t *talkServer) check(client account) error {
	if err := client.check(); err != nil {
		return fmt.Errorf("the client: %w", err)
	}
	synctest.Wait()
	_ = t.srv.Close()
	synctest.Wait()
	select {
	case a := <-t.account:
		if err := a.check(); err != nil {
			return fmt.Errorf("the server: %w", err)
		}
	default:
		if client.n > 0 {
			return errors.New("an answer from a handler that did not run")
		}
	}
	return nil
}

func (t *talkServer) stop() {
	_ = t.srv.Close()
	<-t.served
}
