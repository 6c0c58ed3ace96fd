package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// fakeServer is a server that says what it likes to an honest client, once.
func fakeServer(t *testing.T, f func(r *raw, c *kernel.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tg := &target{&testkit.Target{T: t, Bubble: true, Log: &journal{}}}
		dialled := make(chan net.Conn, 1)
		dials := 0
		dial := func(context.Context, string, string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("one is enough")
			}
			a, b := conn.Pipe()
			dialled <- b
			return a, nil
		}
		ready := make(chan *raw)
		go func() {
			r := &raw{tg: tg, t: t, nc: <-dialled, next: 2, cost: native.New(1 << 20)}
			g := &frame.Greeting{Own: hello()}
			sess, err := native.Protocol{}.Handshake(context.Background(), r.nc, g)
			if err != nil {
				t.Error(err)
			}
			r.sess, r.peer, r.credit = sess.(*native.Session), g.Peer, g.Peer.ConnCredit
			go r.listen()
			ready <- r
		}()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		client, err := kernel.Dial(ctx, kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: dial, Limits: targetLimits()}))
		if err != nil {
			t.Fatal(err)
		}
		r := <-ready
		f(r, client)
		_ = client.Close()
		_ = r.nc.Close()
	})
}

// A GOAWAY that names a stream refuses those above it, as not processed, and
// leaves the others alone.
func TestHostileServersGoAway(t *testing.T) {
	fakeServer(t, func(r *raw, c *kernel.Client) {
		ctx := context.Background()
		open := func() *kernel.Stream {
			s, err := c.Open(ctx, "m", nil)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return s
		}
		served, unserved := open(), open()
		r.say(frame.Frame{Kind: frame.GoAway, Value: 1})
		synctest.Wait()
		var se *status.StreamError
		if err := unserved.Err(); !errors.As(err, &se) || !se.NotProcessed || !errors.Is(err, kernel.ErrRefused) {
			t.Errorf("above the last: %v", err)
		}
		if err := served.Err(); err != nil {
			t.Errorf("the last: %v", err)
		}
		r.say(frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 100}}})
		_ = r.write(data(1, []byte("on")))
		m, err := served.Receive(ctx)
		if err != nil || string(m.Bytes()) != "on" {
			t.Errorf("the last goes on with %q, %v", m.Bytes(), err)
		}
		m.Release()
	})
}

// A GOAWAY with a code that serves none of a connection's streams refuses them, and is
// the reason of the connection's end and of theirs.
func TestAnEndWithACodeBeforeAnyStreamWasServed(t *testing.T) {
	fakeServer(t, func(r *raw, c *kernel.Client) {
		ctx := context.Background()
		k, err := c.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.Open(ctx, "m", nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.say(frame.Frame{Kind: frame.GoAway, Code: status.Checksum, Reason: "a bit was changed"})
		synctest.Wait()
		var ce *status.ConnError
		if err := k.Err(); !errors.As(err, &ce) || ce.Code != status.Checksum || !ce.Remote {
			t.Errorf("the connection ended with %v", err)
		}
		var se *status.StreamError
		if err := s.Err(); !errors.As(err, &se) || !se.NotProcessed || !strings.Contains(err.Error(), "CHECKSUM: a bit was changed") {
			t.Errorf("the stream ended with %v", err)
		}
	})
}

// A client defends itself as a server does: what a server may not send ends the
// connection, and its streams with an error.
func TestHostileServers(t *testing.T) {
	for _, row := range []struct {
		name string
		say  []byte
		code status.Code
	}{
		{"24 a GOAWAY with a stream that never was", frames(frame.Frame{Kind: frame.GoAway, Value: 3}), status.Protocol},
		{"30 open with the client's parity", frames(openFrame(3, "m")), status.Protocol},
		{"32 an answer for a stream never opened", frames(frame.Frame{Kind: frame.Reject, Stream: 3, Code: 1}), status.StreamState},
		{"40 credit beyond all in an answer", frames(frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 1<<31 + 1}}}), status.FlowControl},
		{"41 more data than credit", bytes.Repeat(data(1, make([]byte, 10_000)), 12), status.FlowControl},
		{"08 a frame beyond the limit", head(1<<20, typeData, 1), status.FrameSize},
		{"15 data for nobody", data(9, nil), status.StreamState},
	} {
		t.Run(row.name, func(t *testing.T) {
			fakeServer(t, func(r *raw, c *kernel.Client) {
				s, err := c.Open(context.Background(), "m", nil)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				_ = r.write(row.say)
				synctest.Wait()
				h, ok := r.find(frame.GoAway, 0)
				if !ok || h.code != row.code {
					t.Errorf("no GOAWAY with %v: %s", row.code, r.tail())
				}
				m, err := s.Receive(context.Background())
				for ; err == nil; m, err = s.Receive(context.Background()) { // what came within the credit
					m.Release()
				}
				var ce *status.ConnError
				if !errors.Is(err, &status.StreamError{Code: status.ConnectionLost}) &&
					!errors.Is(err, kernel.ErrRefused) || errors.As(err, &ce) && ce.Code != row.code {
					t.Errorf("the stream ended with %v", err)
				}
			})
		})
	}
}
