package actor

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// Where the protocol has no ENDED, a peer that is done closes the connection. That is no
// failure after both ends, even if our application has not read everything, and neither is it
// after the peer's end where the peer has stopped reading ours. Anything else is a failure.
func TestAPeerThatClosesAfterBothEnds(t *testing.T) {
	fin := &status.StreamError{Code: status.ConnectionLost, Cause: io.ErrUnexpectedEOF}
	rst := &status.StreamError{Code: status.ConnectionLost, Cause: errors.New("reset")}
	for name, c := range map[string]struct {
		ours, theirs bool
		stops        bool // the peer reads no more
		lost         *status.StreamError
		clean        bool // what is read after the message is the end
		failed       bool
	}{
		"after both":             {true, true, false, fin, true, false},
		"after the peer's end":   {false, true, false, fin, true, true},
		"after ours":             {true, false, false, fin, false, true},
		"before any":             {false, false, false, fin, false, true},
		"both, reset":            {true, true, false, rst, true, true},
		"the peer's end, reset":  {false, true, false, rst, true, true},
		"both, cause not known":  {true, true, false, &status.StreamError{Code: status.ConnectionLost}, true, true},
		"before any, by a reset": {false, false, false, rst, false, true},
		"after its end and stop": {false, true, true, fin, true, false},
		"after its stop alone":   {false, false, true, fin, false, true},
		"end and stop, reset":    {false, true, true, rst, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPaced(t, frame.Unpaced, func(c *Config) { c.Caps.HalfClose = true })
			if err := x.arrive(10); err != nil {
				t.Fatal(err)
			}
			if c.theirs {
				if err := x.s.PeerEnd(status.OK, "", nil); err != nil {
					t.Fatal(err)
				}
			}
			if c.ours {
				x.s.CloseSend(status.OK, "", nil)
				x.write()
			}
			if c.stops { // and our end is not written yet
				x.s.PeerStopped(status.OK)
			}
			lost := *c.lost
			x.s.Lost(&lost)
			if err := x.s.Err(); (err != nil) != c.failed {
				t.Errorf("it has failed with %v", err)
			}
			x.receive()
			m, err := x.s.Receive(noWait)
			if (err == io.EOF) != c.clean { //nolint:errorlint // never wrapped
				t.Errorf("after the message: %v", err)
			}
			m.Release()
			select {
			case <-x.s.Done():
			default:
				t.Error("it is not done")
			}
			if err := x.trySend(1); err == nil {
				t.Error("it takes messages")
			}
			x.end()
		})
	}
}

// The reader of a batch may end the stream before the goroutine that feeds Batches has
// accounted for it. The peer learns that it was read.
func TestABatchThatWasReceivedWasRead(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			const n = 20
			a, b := newPair(1<<16, 1<<16, 1<<20, 1000)
			for range n {
				a.trySend(t, []byte("x"))
			}
			if err := a.s.CloseSend(status.OK, "", nil); err != nil {
				t.Fatal(err)
			}
			run(t, a, b, false)
			batches := b.s.Batches()
			synctest.Wait()
			b.s.mu.Lock() // the goroutine can't account for it before the end
			batch := <-batches
			read := batch.Len()
			batch.Release()
			b.s.closeSend(nil, status.OK, "", nil)
			b.s.closeReceive()
			b.s.unlock()
			b.fill(true, 0)
			synctest.Wait()
			run(t, a, b, false)
			a.s.CloseReceive(status.OK)
			run(t, a, b, false)
			<-a.s.Done()
			<-b.s.Done()
			if d := a.s.Discarded(); d != n-read {
				t.Fatalf("%d messages discarded, %d of %d were read", d, read, n)
			}
		})
	}
}

// ownContext is a stream's own context, as kernel.Stream makes it. Its Done, which is asked for
// right before somebody waits for it, has come happen first.
type ownContext struct {
	context.Context
	s    *Stream
	come *func()
}

func (c ownContext) Done() <-chan struct{} {
	if f := *c.come; f != nil {
		*c.come = nil
		f()
	}
	return c.s.ContextDone()
}

func (c ownContext) Err() error {
	if over, _ := c.s.ContextOver(); over {
		return context.Canceled
	}
	return nil
}

// The last messages, the end and a FIN may come at once, while a handler waits with its
// stream's context, which ends then too. The handler is given the messages and the end, also
// where In or Batches is in use beside.
func TestAReaderThatWaitsWithTheStreamsContextGetsAllThatCame(t *testing.T) {
	for name, use := range map[string]func(s *Stream){
		"Receive":    func(*Stream) {},
		"In":         func(s *Stream) { s.In() },
		"In, 1 long": func(s *Stream) { s.cfg.InBuffer = 1; s.In() },
		"Batches":    func(s *Stream) { s.Batches() },
	} {
		t.Run(name, func(t *testing.T) {
			for range 100 { // of two things that a select waits for it takes any
				readToTheEnd(t, use)
			}
		})
	}
}

func readToTheEnd(t *testing.T, use func(*Stream)) {
	t.Helper()
	const sent = 3
	x := newPaced(t, frame.Unpaced, func(c *Config) { c.Caps.HalfClose = true })
	x.s.CloseSend(status.OK, "", nil)
	x.write()
	use(x.s)
	come := func() {
		for range sent {
			if err := x.arrive(10); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.s.PeerEnd(status.OK, "", nil); err != nil {
			t.Fatal(err)
		}
		x.s.Lost(&status.StreamError{Code: status.ConnectionLost, Cause: io.ErrUnexpectedEOF})
		runtime.Gosched() // a goroutine that feeds Batches offers them, most likely
	}
	ctx := ownContext{context.Background(), x.s, &come}
	for n := 0; ; n++ {
		m, err := x.s.Receive(ctx)
		if err == nil {
			m.Release()
			continue
		}
		if err != io.EOF || n != sent { //nolint:errorlint // never wrapped
			t.Fatalf("%d messages, then %v", n, err)
		}
		return
	}
}
