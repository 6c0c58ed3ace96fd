package interop

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// deafBrpc is a client of a server that accepts one stream and then reads nothing.
func deafBrpc(t *testing.T) *kernel.Client {
	t.Helper()
	near, far := conn.Pipe()
	client := testkit.Must[*kernel.Client](t)(kernel.Dial(t.Context(), kerneltest.Target, quietClient(&kernel.ClientOptions{
		Protocols: []frame.Protocol{strm.Protocol{}},
		Dial:      func(context.Context, string, string) (net.Conn, error) { return near, nil },
	})))
	go func() {
		var w *word
		for have, buf := []byte(nil), make([]byte, 1<<10); w == nil; w, have = parseWord(have) {
			n, err := far.Read(buf)
			if have = append(have, buf[:n]...); err != nil {
				return
			}
		}
		meta := join(str(2, num(1, 0)), num(4, w.num(4)), brpcSettings([]int64{50}, true, true))
		_, _ = far.Write(strmData(w.streams()[0], 50, string(packed("PRPC", meta, nil))))
	}()
	t.Cleanup(func() {
		_ = client.Close()
		_ = far.Close()
	})
	return client
}

// Where no credit of the peer's bounds what a stream may send, OutQueue bounds what it has
// accepted: beyond what the transport holds.
func TestOutQueueBoundsStreamsWithoutCredit(t *testing.T) {
	const (
		size     = 64 << 10
		outQueue = 1 << 20 // the default
		held     = 4 << 20 // by the pipe, and by the connection as being written
	)
	for name, k := range map[string]struct {
		client func(t *testing.T) *kernel.Client
		limit  int
	}{
		"brpc, no window":    {deafBrpc, kernel.Unlimited},
		"brpc, defaults":     {deafBrpc, 0},
		"Seastar, no window": {deafSeastar, kernel.Unlimited},
		"Seastar, defaults":  {deafSeastar, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := k.client(t)
				s := testkit.Must[*kernel.Stream](t)(client.Open(t.Context(), "", &kernel.OpenOptions{Stream: kernel.StreamOptions{SendLimit: k.limit}}))
				time.Sleep(settle)
				sent := 0
				for ; sent < 64<<20; sent += size {
					m := sized(size, 'x')
					if err := s.TrySend(m); err != nil {
						m.Release()
						if !errors.Is(err, kernel.ErrWouldBlock) {
							t.Fatal(err)
						}
						break
					}
					synctest.Wait()
				}
				if sent < 4*size || sent > outQueue+held {
					t.Errorf("%d bytes were taken, OutQueue is %d", sent, outQueue)
				}
				i := s.Snapshot()
				if n := i.QueuedBytes; n > outQueue+size {
					t.Errorf("%d bytes wait to be written", n)
				}
				slots := s.Writable()
				synctest.Wait()
				testkit.WantOpen(t, "Writable", slots)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				m := sized(size, 'x')
				if err := s.Send(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Send: %v", err)
				}
				m.Release()
				if i := s.Snapshot(); k.limit != 0 && i.BlockedOn != kernel.BlockedOnQueue {
					t.Errorf("it is blocked on %q", i.BlockedOn)
				}
				s.Abort(status.Aborted, "")
			})
		})
	}
}
