package interop

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// A sinkless server is one of Seastar's whose handlers make no sink. For each call it reads
// a stream up to its end, and closes its connection without an end of its own. It answers
// the call when ready returns.
type sinkless struct {
	t      *testing.T
	ln     net.Listener
	ready  func()
	called chan struct{} // an item for each call
	ended  chan struct{} // an item for each stream that was read to its end
}

func newSinkless(t *testing.T) (*sinkless, *kernel.Client) {
	t.Helper()
	s := &sinkless{t: t, ln: listen(t), ready: func() {}, called: make(chan struct{}, 8), ended: make(chan struct{}, 8)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := uint64(1); ; id++ {
			nc, err := s.ln.Accept()
			if err != nil {
				return
			}
			go s.serve(nc, id<<16)
		}
	}()
	client := testkit.Must[*kernel.Client](t)(kernel.Dial(t.Context(), "seastar://"+s.ln.Addr().String(),
		quietClient(&kernel.ClientOptions{Protocols: []frame.Protocol{&seastar.Protocol{}}})))
	t.Cleanup(func() {
		_ = client.Close()
		_ = s.ln.Close()
		<-done
	})
	return s, client
}

func (s *sinkless) serve(nc net.Conn, id uint64) {
	defer nc.Close()
	_, child := readRawHello(s.t, nc)[rawStreamParent]
	_, _ = nc.Write(rawHello(rawConnectionID, rawID(id)))
	if child {
		s.read(nc)
		return
	}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(nc, head); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, nc, int64(binary.LittleEndian.Uint32(head[16:])))
		s.called <- struct{}{}
		s.ready()
		_, _ = nc.Write([]byte(string(head[8:16]) + rawFrame("")))
	}
}

// read reads a stream up to its end.
func (s *sinkless) read(nc net.Conn) {
	<-s.called
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(nc, head); err != nil {
			return
		}
		n := binary.LittleEndian.Uint32(head)
		if string(head) == rawEOS {
			s.ended <- struct{}{}
			return
		}
		_, _ = io.CopyN(io.Discard, nc, int64(n))
	}
}

// A stream without a way back ends in order, although its server closes the connection
// without an end of its own: before it answers the call, or after.
func TestSeastarAOneWayStreamEndsInOrder(t *testing.T) {
	for name, early := range map[string]bool{"before the answer": true, "after the answer": false} {
		t.Run(name, func(t *testing.T) {
			s, client := newSinkless(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for range 10 {
				sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](ctx, client, nil))
				send := func() {
					for i := range int32(100) {
						if err := sink.Send(ctx, i); err != nil {
							t.Error(err)
						}
					}
					if err := sink.CloseSend(); err != nil {
						t.Error(err)
					}
				}
				if early {
					s.ready = func() {
						<-s.ended
						<-sink.Stream().Conn().Done()
						ok(t, sink.Err()) // also before the answer
					}
					send()
				}
				_, err := rpc.Call[struct{}, *intSink](ctx, client, kernel.Verb(1), sink, nil)
				ok(t, err)
				if !early {
					send()
					<-s.ended
				}
				<-sink.Stream().Conn().Done()
				ok(t, sink.Err())
				ok(t, sink.Close(ctx))
			}
		})
	}
}

// A result can have a stream, and this one has none: what the call has sent ends in order all
// the same, although the connection was closed before the result came.
func TestSeastarAResultWithoutItsStreamEndsInOrder(t *testing.T) {
	type back struct{ Values *rpc.Source[int32] }
	type result struct{ Back *back } // optional, as what is last may be
	s, client := newSinkless(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 10 {
		sink := testkit.Must[*intSink](t)(rpc.NewSink[int32](ctx, client, nil))
		ok(t, sink.Send(ctx, 1))
		ok(t, sink.CloseSend())
		s.ready = func() { <-sink.Stream().Conn().Done() }
		r := testkit.Must[result](t)(rpc.Call[result](ctx, client, kernel.Verb(1), sink, nil))
		if r.Back != nil {
			t.Fatal("the result has a stream")
		}
		<-s.ended
		ok(t, sink.Err())
		ok(t, sink.Close(ctx))
	}
}

// Whoever reads no more has no need of the other half's end. A half that is read needs one.
func TestSeastarAHalfThatNobodyReadsNeedsNoEnd(t *testing.T) {
	s, client := newSinkless(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, c := range map[string]struct {
		so      kernel.StreamOptions
		stop    bool
		inOrder bool
		end     error
	}{
		"CloseReceive": {stop: true, inOrder: true, end: kernel.ErrClosed},
		"NoReceive":    {so: kernel.StreamOptions{NoReceive: true}, inOrder: true, end: kernel.ErrClosed},
		"read":         {},
	} {
		t.Run(name, func(t *testing.T) {
			st := testkit.Must[*kernel.Stream](t)(client.Open(ctx, "", &kernel.OpenOptions{Stream: c.so}))
			if c.stop {
				st.CloseReceive(status.OK)
			}
			ok(t, st.Send(ctx, text("one")))
			ok(t, st.CloseSend())
			s.called <- struct{}{}
			<-s.ended
			<-st.Conn().Done()
			if err := st.Err(); (err == nil) != c.inOrder {
				t.Errorf("the stream ends with %v", err)
			}
			if _, err := st.Receive(ctx); c.inOrder {
				isErr(t, "Receive", err, c.end)
			} else {
				wantCode(t, err, status.ConnectionLost)
			}
		})
	}
}
