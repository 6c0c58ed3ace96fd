package conn

import "testing"

// A connection is told once that its socket takes more, however many events there
// are: one may be late and for a connection that had the descriptor before.
func TestTheWatcherTellsOnceForEachWait(t *testing.T) {
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	const fd = 1 << 20 // no socket: the events are the test's
	a, b := &loopConn{}, &loopConn{}
	w.add(fd, a)
	if got := w.disarm(fd); got != a {
		t.Errorf("the first event is for %p, want %p", got, a)
	}
	if got := w.disarm(fd); got != nil {
		t.Error("told twice of one wait")
	}
	w.add(fd, a)
	w.remove(fd)
	if got := w.disarm(fd); got != nil {
		t.Error("a connection that has gone was told")
	}
	w.add(fd, b)
	if w.disarm(fd) != b || w.disarm(fd) != nil {
		t.Error("the next connection was not told once")
	}
}
