package conn

import "testing"

// So is one on an event loop, which goes on for others.
func TestAPanicOnALoopIsTold(t *testing.T) {
	lc := &loopConn{}
	wantPanicTold(t, func(c *Conn, p []byte) bool {
		lc.c = c
		return lc.input(p)
	})
	if lc.input(nil) {
		t.Error("the loop goes on to hand on what comes")
	}
}
