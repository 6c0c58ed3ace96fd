package interop

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// fillWindow sends messages until a's window is full, and all is written.
func fillWindow(w *world, a *kernel.Stream, size int) (sent int) {
	w.T.Helper()
	time.Sleep(settle)
	for before := -1; before < sent; w.Quiesce() {
		before = sent
		m := sized(size, 'x')
		err := a.TrySend(m)
		for ; err == nil; err = a.TrySend(m) {
			sent++
			m = sized(size, 'x')
		}
		m.Release()
		if !errors.Is(err, kernel.ErrWouldBlock) {
			w.T.Fatal(err)
		}
	}
	return sent
}

// A window that is full of small messages is within the cap of who receives them, with the
// defaults' ratio of the two.
func TestBrpcAWindowOfSmallMessagesIsWithinTheCap(t *testing.T) {
	const window = 64 << 10
	so := &kernel.ServerOptions{Limits: kernel.Limits{SenderWindow: 8 * window, MaxMessage: window}}
	for _, size := range []int{1, 2, 3} {
		brpcInBubble(t, so, nil, func(t *testing.T, w *world) {
			a, b := w.Pair(kernel.StreamOptions{SendLimit: window}, kernel.StreamOptions{InBuffer: kernel.None})
			n := fillWindow(w, a, size)
			if n < window/size {
				t.Errorf("%d messages of %d bytes", n, size)
			}
			ok(t, a.Err())
			ok(t, b.Err())
			w.DrainN(b, n)
			w.Cleanup(a, b)
		})
	}
}

// With defaults on both sides, streams that nobody reads can't have a connection hold so much
// that one of them is reset. And one that is read goes on beside them, with messages longer
// than its share.
func TestBrpcStuckStreamsOfADefaultClientAreWithinTheCap(t *testing.T) {
	const streams, size = 50, 64 << 10
	brpcInBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Handle("echo", echo)
		busy := w.Open("echo")
		long := bytes.Repeat([]byte("0123456789"), 300_000)
		var all []*kernel.Stream
		total := 0
		for i := range streams {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{InBuffer: kernel.None})
			n := fillWindow(w, a, size)
			if n == 0 {
				t.Error("a stream may send nothing")
			}
			total += n * size
			all = append(all, a, b)
			if i%24 > 0 {
				continue
			}
			w.SendMessage(busy, pool.MessageOf(bytes.Clone(long)))
			m, err := busy.Receive(w.Ctx)
			if err != nil || !bytes.Equal(m.Bytes(), long) {
				t.Fatalf("%d bytes came back, %v", m.Len(), err)
			}
			m.Release()
		}
		if total < 30<<20 || total > 40<<20 {
			t.Errorf("%d bytes are unread", total)
		}
		for _, s := range all {
			ok(t, s.Err())
		}
		w.Cleanup(append(all, busy)...)
	})
}

// The streams of a client have so much unread at their server together and no more, but for a
// little each: brpc's flag socket_max_streams_unconsumed_bytes. What the server reports as taken
// makes room for others.
func TestBrpcStreamsOfAConnectionShareWhatIsUnread(t *testing.T) {
	const most, least, window, size = 256 << 10, 16 << 10, 64 << 10, 1 << 10
	so := &kernel.ServerOptions{Protocols: bothWires()}
	co := &kernel.ClientOptions{Protocols: []frame.Protocol{strm.Protocol{MaxUnconsumed: most, MinBuf: least}}}
	inBubble(t, so, co, func(t *testing.T, w *world) {
		var sent []int
		var ends []*kernel.Stream
		for range 10 {
			a, b := w.Pair(kernel.StreamOptions{SendLimit: window}, kernel.StreamOptions{InBuffer: kernel.None})
			sent = append(sent, fillWindow(w, a, size))
			ends = append(ends, b)
			w.Cleanup(a, b)
		}
		sum := 0
		for _, n := range sent {
			sum += n * size
		}
		if first, last := sent[0], sent[9]; first != window/size || last < least/size || last > least/size+1 {
			t.Errorf("the first stream sends %d messages, the last %d", first, last)
		}
		if sum < most || sum > most+10*(least+size)+window {
			t.Errorf("%d bytes are unread", sum)
		}
		for i, b := range ends {
			w.DrainN(b, sent[i])
		}
		a, b := w.Pair(kernel.StreamOptions{SendLimit: window}, kernel.StreamOptions{InBuffer: kernel.None})
		if n := fillWindow(w, a, size); n != window/size {
			t.Errorf("when all is read a stream sends %d messages", n)
		}
		w.Cleanup(a, b)
	})
}
