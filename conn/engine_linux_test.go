package conn

import "testing"

// The same on an event loop, which goes on for other connections.
func TestAPanicOnALoopIsReported(t *testing.T) {
	lc := &loopConn{}
	wantPanicTold(t, func(c *Conn, p []byte) bool {
		lc.c = c
		return lc.input(p)
	})
	if lc.input(nil) {
		t.Error("the loop goes on passing input to the connection")
	}
}
