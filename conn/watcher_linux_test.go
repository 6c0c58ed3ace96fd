package conn

import "testing"

// A connection is notified once for each add, however many events there are: one may be
// late, and for a connection that had the same descriptor before.
func TestTheWatcherNotifiesOnceForEachAdd(t *testing.T) {
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
		t.Error("notified twice for one add")
	}
	w.add(fd, a)
	w.remove(fd)
	if got := w.disarm(fd); got != nil {
		t.Error("a connection that is gone was notified")
	}
	w.add(fd, b)
	if w.disarm(fd) != b || w.disarm(fd) != nil {
		t.Error("the next connection was not notified once")
	}
}
