package actor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A window that was nudged is as large as before once the peer has reported: SendLimit
// is what it may have unread at most, and one message.
func TestANudgeIsPaidBackByTheFirstReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newPaced(t, frame.Reported, func(c *Config) { c.SendLimit = 100 })
		defer x.end()
		_ = x.trySend(300) // whole: 200 more than the window
		x.write()
		_ = x.trySend(7) // starts the nudge
		time.Sleep(nudgeAfter + 1)
		synctest.Wait()
		if err := x.trySend(7); err != nil {
			t.Fatal(err)
		}
		x.write()
		if err := x.s.PeerGrant(307); err != nil { // all of it: nothing is unread
			t.Fatal(err)
		}
		n := 0
		for ; x.trySend(10) == nil; n++ {
			x.write()
		}
		if n > 10 {
			t.Errorf("%d bytes are unread at the peer, of %d", 10*n, 100)
		}
	})
}
