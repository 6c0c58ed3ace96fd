package kernel

import (
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/conn"
)

// pacedQueue returns the queue of a connection with so many handlers, on an endpoint with a
// budget of 100 MB of which so many percent are in use.
func pacedQueue(st *starts, handlers int32, percent int64) *runQueue {
	ep := &endpoint{growth: conn.NewGrowth(func() {}), limits: Limits{Memory: 100e6}}
	ep.left.Store((100 - percent) * 1e6)
	c := &Conn{endpoint: ep}
	q := &c.running
	q.most, q.starts, q.conn = 1000, st, c
	q.count.Store(handlers)
	return q
}

// Connections with few handlers come before others, and take turns among themselves.
func TestConnectionsWithFewHandlersComeFirst(t *testing.T) {
	var st starts
	many, few, other := pacedQueue(&st, 500, 0), pacedQueue(&st, 2, 0), pacedQueue(&st, 3, 0)
	for range readyEach * runtime.GOMAXPROCS(0) {
		if !st.may(many) {
			t.Fatal("a handler waits for nobody")
		}
	}
	if st.may(few) {
		t.Fatal("more handlers are ready than may be")
	}
	st.await(many)
	st.await(few)
	st.await(other)
	if st.turn() != nil {
		t.Fatal("a turn, while enough handlers are ready")
	}
	for i, want := range []*runQueue{few, other, many, nil} {
		st.ready.Add(-1)
		if got := st.turn(); got != want {
			t.Errorf("turn %d is another connection's", i)
		}
	}
}

// Where memory is short, handlers of a connection that holds much wait, and others do not.
func TestHandlersWaitForMemory(t *testing.T) {
	for _, c := range []struct {
		percent  int64
		handlers int32
		used     int64 // by the connection's streams
		waits    bool
	}{
		{50, 900, 40e6, false},
		{80, 900, 40e6, true},
		{80, 900, 100e3, true}, // 900 of which none has been looked at yet are 5.5 MB
		{80, 30, 100e3, false},
		{86, 30, 1, true},
		{86, 3, 30e3, false},
		{97, 3, 30e3, false},
		{97, 3, 10e6, true}, // few, but they hold much
	} {
		var st starts
		q := pacedQueue(&st, c.handlers, c.percent)
		q.conn.used.Store(c.used)
		if st.may(q) == c.waits {
			t.Errorf("%+v: it is otherwise", c)
		}
		st.await(q)
		if got := st.turn(); (got == nil) != c.waits {
			t.Errorf("%+v: a turn: %v", c, got != nil)
		}
		q.conn.endpoint.left.Store(90e6)
		if c.waits && st.turn() != q {
			t.Errorf("%+v: it waits still when there is memory", c)
		}
	}
}
