package conn

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// refuser is a program that refuses all streams.
type refuser struct{ closed chan error }

func (n *refuser) Open(*Conn, *frame.Frame) *Refusal { return &Refusal{Code: status.Unimplemented} }
func (n *refuser) GoAway(*Conn)                      {}
func (n *refuser) Outlived(c *Conn, why error)       { c.Drain(why) }
func (n *refuser) Closed(_ *Conn, err error)         { n.closed <- err }
func (n *refuser) Started(*Conn)                     {}

// A connection can be closed as soon as it exists, before its reader runs: a server that is
// shutting down does that.
func TestAConnectionClosedAtOnceIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, peer := Pipe()
		h := &refuser{closed: make(chan error, 2)}
		start := time.Now()
		Serve(ours, Config{
			Session: native.New(native.DefaultMaxFragment), Limits: limits(Limits{}), Handler: h,
			Timers: &timers.Queue{}, Remote: ours.RemoteAddr(), Peer: frame.Settings{ConnCredit: 1 << 20},
		}, nil, func(c *Conn) { c.Close(status.Cancelled, "closed") })
		if _, err := io.Copy(io.Discard, peer); err != nil {
			t.Error("the peer reads:", err)
		}
		_ = peer.Close()
		if err := <-h.closed; err == nil {
			t.Error("closed without a reason")
		}
		if d := time.Since(start); d > lingerTime {
			t.Errorf("gone after %v", d)
		}
		synctest.Wait()
		if _, err := ours.Write(nil); err != nil && err != net.ErrClosed {
			t.Error(err)
		}
		if len(h.closed) > 0 {
			t.Error("Closed was called twice")
		}
	})
}
