package conn

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// A process that was stopped for a minute, in the middle of a frame, gives its peer the
// whole time for the rest of it: the bytes may wait in the socket.
func TestTimeThatTheProcessDidNotRunIsForgiven(t *testing.T) {
	for name, stopped := range map[string]bool{"stopped": true, "running": false} {
		t.Run(name, func(t *testing.T) {
			c, _ := newDecoded(t, &acceptor{})
			c.start()
			if p := opening(1, 1); !c.Input(p[:len(p)-1]) {
				t.Fatal(c.Err())
			}
			c.health.frameSince.Store(1)
			at := time.Minute
			if stopped {
				c.Expire(nil, c.began.Add(at))
				if err := c.Err(); err != nil {
					t.Fatalf("after a minute in which nothing ran: %v", err)
				}
			} else {
				at = 0
			}
			end := at + c.lim.ReadStall
			for ; c.Err() == nil && at < 3*time.Minute; at = time.Duration(c.health.checkDue) {
				c.health.heard(int64(at)) // the frame goes on, byte by byte
				c.Expire(nil, c.began.Add(at))
			}
			if last := at - c.lim.WriteStall/4; !errors.Is(c.Err(), &status.ConnError{Code: status.DeadlineExceeded}) || last > end {
				t.Errorf("at %v: %v", at, c.Err())
			}
		})
	}
}

// A write that has just begun has not waited for long, whoever asks at that moment.
func TestAWriteThatBeginsHasNotWaited(t *testing.T) {
	for range 20_000 {
		c := &Conn{began: time.Now().Add(-time.Hour)}
		asks, waited := make(chan struct{}), make(chan time.Duration)
		go func() {
			close(asks)
			for !c.health.waiting.Load() {
				runtime.Gosched()
			}
			waited <- c.blockedFor()
		}()
		<-asks
		c.writeBlocked()
		if d := <-waited; d > time.Minute {
			t.Fatalf("it has waited for %v", d)
		}
	}
}
