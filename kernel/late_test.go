package kernel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// A peer whose timer is the earlier one ends a stream by a cancellation: what has ended it is
// the deadline all the same.
func TestCancelledByThePeerAtTheDeadline(t *testing.T) {
	for _, tc := range []struct {
		name string
		left time.Duration // until the deadline; 0: there is none
		off  bool
		code status.Code
		want status.Code
	}{
		{name: "no deadline", code: status.Cancelled, want: status.Cancelled},
		{name: "before it", left: time.Second, code: status.Cancelled, want: status.Cancelled},
		{name: "at it", left: -1, code: status.Cancelled, want: status.DeadlineExceeded},
		{name: "another code", left: -1, code: status.Aborted, want: status.Aborted},
		{name: "of the answer alone", left: -1, off: true, code: status.Cancelled, want: status.Cancelled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &core{}
				if tc.left != 0 {
					c.setDeadline(time.Now().Add(tc.left))
					c.x.Load().deadlineOff.Store(tc.off)
				}
				if got := c.resetCode(&frame.Frame{Code: tc.code}); got != tc.want {
					t.Errorf("the code is %v, not %v", got, tc.want)
				}
			})
		})
	}
}
