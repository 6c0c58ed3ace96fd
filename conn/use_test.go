package conn

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// busySession is a session whose Next takes as long as a test likes.
type busySession struct {
	*native.Session
	reading chan struct{} // has an element after the call of Next
	goOn    chan struct{} // lets it return
	inNext  atomic.Bool
	calls   atomic.Int32 // of Next
	closed  atomic.Int32 // calls of Closed
	early   atomic.Bool  // it was called during Next, or before it
}

func (s *busySession) Next(p []byte, f *frame.Frame) (int, error) {
	s.calls.Add(1)
	s.inNext.Store(true)
	if s.closed.Load() > 0 {
		s.early.Store(true)
	}
	if len(p) > 0 {
		s.reading <- struct{}{}
		<-s.goOn
	}
	s.inNext.Store(false)
	f.Kind = frame.None
	return len(p), nil
}

func (s *busySession) Closed() {
	if s.inNext.Load() {
		s.early.Store(true)
	}
	s.closed.Add(1)
}

// A session that is closed may release what its reader owns: the reader has left it, and does
// not come back. A connection that ends waits for neither.
func TestASessionIsClosedWhenItsReaderHasLeftIt(t *testing.T) {
	for name, reading := range map[string]bool{"in Next": true, "in Read": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, peer := Pipe()
				defer peer.Close()
				h := &refuser{closed: make(chan error, 1)}
				sess := &busySession{
					Session: native.New(native.DefaultMaxFragment), reading: make(chan struct{}, 8), goOn: make(chan struct{}),
				}
				c := Serve(ours, Config{
					Session: sess, Limits: limits(Limits{}), Handler: h,
					Timers: &timers.Queue{}, Remote: ours.RemoteAddr(), Peer: frame.Settings{ConnCredit: 1 << 20},
				}, nil, func(*Conn) {})
				if reading {
					if _, err := peer.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
					<-sess.reading
				}
				synctest.Wait()
				start, calls := time.Now(), sess.calls.Load()
				c.lost("write", net.ErrClosed)
				<-h.closed
				if d := time.Since(start); d > 0 {
					t.Errorf("the connection ended after %v", d)
				}
				if n := sess.closed.Load(); (n > 0) == reading {
					t.Errorf("closed %d times while the reader is %s", n, name)
				}
				c.Close(status.OK, "again")
				close(sess.goOn)
				synctest.Wait()
				if c.Input([]byte("y")) {
					t.Error("input is taken after the end")
				}
				if n := sess.closed.Load(); n != 1 || sess.early.Load() || sess.calls.Load() != calls {
					t.Errorf("closed %d times, early: %v, %d calls of Next after the end", n, sess.early.Load(), sess.calls.Load()-calls)
				}
			})
		})
	}
}
