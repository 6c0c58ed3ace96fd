package conn

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// fullSession is a session that is full for good.
type fullSession struct {
	*native.Session
	asked chan struct{} // has an element after a call of Full
}

func (s *fullSession) Caps() frame.Caps {
	caps := s.Session.Caps()
	caps.Pacing, caps.Ping = frame.Unpaced, false
	return caps
}

func (s *fullSession) Full() <-chan struct{} {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	return make(chan struct{})
}

// However a connection ends while its reader is paused, the reader ends too. In a bubble
// of synctest a reader that spins is a test that never ends, and one that waits a
// deadlock.
func TestAPausedReaderEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(c *Conn, peer net.Conn){
		"Close":      func(c *Conn, _ net.Conn) { c.Close(status.Cancelled, "closed") },
		"Fail":       func(c *Conn, _ net.Conn) { c.Fail("read", status.Protocol, errPartial) },
		"Drain":      func(c *Conn, _ net.Conn) { c.Drain(nil) },
		"EndSoon":    func(c *Conn, _ net.Conn) { c.EndSoon() },
		"lost":       func(c *Conn, _ net.Conn) { c.lost("write", net.ErrClosed) },
		"peer gone":  func(c *Conn, peer net.Conn) { _ = peer.Close(); c.Close(status.Cancelled, "closed") },
		"idle":       func(*Conn, net.Conn) {}, // until IdleConn
		"a panic":    func(c *Conn, _ net.Conn) { c.panicked("of another") },
		"a violator": func(c *Conn, _ net.Conn) { c.violated(&frame.Violation{Code: status.EnhanceYourCalm}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, peer := Pipe()
				defer peer.Close()
				h := &refuser{closed: make(chan error, 1)}
				sess := &fullSession{native.New(native.DefaultMaxFragment), make(chan struct{}, 1)}
				c := Serve(ours, Config{
					Session: sess, Limits: limits(Limits{IdleConn: time.Minute}), Handler: h,
					Timers: &timers.Queue{}, Remote: ours.RemoteAddr(), Peer: frame.Settings{ConnCredit: 1 << 20},
				}, nil, func(*Conn) {})
				time.Sleep(time.Second)
				if _, err := peer.Write([]byte{0}); err != nil {
					t.Fatal(err)
				}
				<-sess.asked
				synctest.Wait()
				time.Sleep(3 * time.Second)
				if i := c.Info(time.Now()); i.Block != BlockReader || i.BlockFor != 3*time.Second {
					t.Errorf("paused: %+v", i)
				}
				end(c, peer)
				<-h.closed
			})
		})
	}
}
