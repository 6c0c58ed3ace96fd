package actor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// wire runs a pair as a connection does, in one goroutine that ends with stop.
func wire(t *testing.T, a, b *end) (stop func()) {
	kick, done := make(chan struct{}, 1), make(chan struct{})
	for _, e := range []*end{a, b} {
		e.link.changed = func() {
			select {
			case kick <- struct{}{}:
			default:
			}
		}
	}
	quit := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-kick:
			case <-time.After(time.Millisecond): // credit came back, which nobody is told
			case <-quit:
				return
			}
			for moved := true; moved; {
				moved = false
				for _, e := range []*end{a, b} {
					e.link.mu.Lock()
					e.to.granted = e.window + e.link.taken
					e.link.mu.Unlock()
					for _, step := range []bool{e.fill(true, 0), e.fill(false, 4000), e.deliver(fatal{t})} {
						moved = moved || step
					}
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}

// fatal reports from a goroutine other than the test's.
type fatal struct{ t *testing.T }

func (f fatal) Fatalf(format string, args ...any) { f.t.Errorf(format, args...) }

// senders are the ways to send n messages in order and end the half.
var senders = map[string]func(s *Stream, n int, next func(i int) pool.Message) error{
	"Send": func(s *Stream, n int, next func(int) pool.Message) error {
		for i := range n {
			if err := s.Send(context.Background(), next(i)); err != nil {
				return err
			}
		}
		return s.CloseSend(status.OK, "", nil)
	},
	"Writable": func(s *Stream, n int, next func(int) pool.Message) error {
		for i := range n {
			slot, ok := <-s.Writable()
			if !ok {
				return s.Err()
			}
			if err := slot.Send(next(i)); err != nil {
				return err
			}
		}
		return s.CloseSend(status.OK, "", nil)
	},
	"Out": func(s *Stream, n int, next func(int) pool.Message) error {
		for i := range n {
			s.Out() <- next(i)
		}
		close(s.Out())
		return nil
	},
	"all three": func(s *Stream, n int, next func(int) pool.Message) error {
		for i := range n {
			switch i % 3 {
			case 0:
				s.Out() <- next(i)
				for s.acceptedSoFar() <= uint64(i) { // another way must not overtake what was received from Out
					time.Sleep(time.Microsecond)
				}
			case 1:
				if err := s.Send(context.Background(), next(i)); err != nil {
					return err
				}
			default:
				if err := (<-s.Writable()).Send(next(i)); err != nil {
					return err
				}
			}
		}
		return s.CloseSend(status.OK, "", nil)
	},
}

func (s *Stream) acceptedSoFar() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messagesAccepted()
}

// readers are the ways to read until the end.
var readers = map[string]func(s *Stream, got func(m pool.Message)) error{
	"Receive": func(s *Stream, got func(pool.Message)) error {
		for {
			m, err := s.Receive(context.Background())
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			got(m)
		}
	},
	"In": func(s *Stream, got func(pool.Message)) error {
		for m := range s.In() {
			got(m)
		}
		return s.Err()
	},
	"Batches": func(s *Stream, got func(pool.Message)) error {
		for b := range s.Batches() {
			for i := range b.Len() {
				got(b.Keep(i))
			}
			b.Release()
		}
		return s.Err()
	},
	"Receive, then In": func(s *Stream, got func(pool.Message)) error {
		for range 100 {
			m, err := s.Receive(context.Background())
			if err != nil {
				return err
			}
			got(m)
		}
		for m := range s.In() {
			got(m)
		}
		return s.Err()
	},
	"Receive through Batches": func(s *Stream, got func(pool.Message)) error {
		s.Batches()
		for {
			m, err := s.Receive(context.Background())
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			got(m)
		}
	},
}

// size of the i-th message: mostly small, some in fragments, some larger than In
// lets share its buffer.
func size(i int) int {
	switch {
	case i%97 == 96:
		return 3000
	case i%10 == 9:
		return 200
	}
	return 4 + i%60
}

func TestEveryWayToSendMeetsEveryWayToRead(t *testing.T) {
	const n = 600
	for ways, send := range senders {
		for how, read := range readers {
			for _, inBuffer := range []int{0, 16} {
				t.Run(fmt.Sprintf("%s/%s/%d", ways, how, inBuffer), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { meet(t, n, inBuffer, send, read) })
				})
			}
		}
	}
}

func meet(t *testing.T, n, inBuffer int, send func(*Stream, int, func(int) pool.Message) error, read func(*Stream, func(pool.Message)) error) {
	a, b := newPair(300, 500, 2000, 64)
	b.s.cfg.InBuffer = inBuffer
	stop := wire(t, a, b)
	var wg sync.WaitGroup
	for _, e := range []*end{a, b} { // both ways at once
		wg.Add(2)
		go func() {
			defer wg.Done()
			if err := send(e.s, n, func(i int) pool.Message {
				m := pool.New(size(i))
				binary.LittleEndian.PutUint32(m.Bytes(), uint32(i))
				return m
			}); err != nil {
				t.Error(e.name, err)
			}
		}()
		go func() {
			defer wg.Done()
			i := 0
			if err := read(e.s, func(m pool.Message) {
				if m.Len() != size(i) || binary.LittleEndian.Uint32(m.Bytes()) != uint32(i) {
					t.Errorf("%s: message %d is another: %d bytes", e.name, i, m.Len())
				}
				m.Release()
				i++
			}); err != nil || i != n {
				t.Errorf("%s: %d of %d messages, %v", e.name, i, n, err)
			}
		}()
	}
	wg.Wait()
	<-a.s.Done()
	<-b.s.Done()
	stop()
	for _, e := range []*end{a, b} {
		if err := e.link.broken(); err != nil {
			t.Error(e.name, err)
		}
		// The goroutine that ended the stream may still be returning the last of it.
		back, taken, reserve := false, 0, 0
		for range 1000 {
			if taken, reserve = e.link.owed(); taken == e.recvd && reserve == 0 && e.link.counted() {
				back = true
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !back {
			t.Errorf("%s: received %d bytes of credit, returned %d; reserved %d; queued as it should be: %v", e.name, e.recvd, taken, reserve, e.link.counted())
		}
	}
}

// The end of the stream wakes all who wait, however many and in whatever way.
func TestTheEndWakesEveryWaiter(t *testing.T) {
	for name, end := range map[string]func(s *Stream){
		"abort":  func(s *Stream) { s.Abort(status.Aborted, "", nil) },
		"lost":   func(s *Stream) { s.Lost(&status.StreamError{Code: status.ConnectionLost}) },
		"reset":  func(s *Stream) { s.PeerReset(status.Aborted, "") },
		"refuse": func(s *Stream) { s.Refused(status.Refused, "", true, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, woken := &Stream{}, make(chan string, 20)
				s.Init(newFakeLink(), &Config{Caps: nativeCaps, InBuffer: 1, MaxBatch: 1, MaxSend: 1000, Window: 100, SendCredit: 0})
				ctx := context.Background()
				waits := map[string]func(){
					"send":    func() { _ = s.Send(ctx, pool.MessageOf(nil)) },
					"receive": func() { _, _ = s.Receive(ctx) }, "receive too": func() { _, _ = s.Receive(ctx) },
					"in": func() { <-s.In() }, "writable": func() { <-s.Writable() },
					"sendDone": func() { <-s.SendDone() }, "done": func() { <-s.Done() },
					"context": func() { <-s.ContextDone() }, "answer": func() { _, _, _ = s.Answer(ctx) },
					"close": func() { _ = s.Close(ctx) },
				}
				order := []string{"send", "receive", "receive too", "writable", "sendDone", "done", "context", "answer"}
				if name != "refuse" {
					order = append(order, "in")
				}
				for _, w := range order {
					go func() { waits[w](); woken <- w }()
					synctest.Wait()
				}
				if len(woken) > 0 {
					t.Fatalf("%s did not wait", <-woken)
				}
				end(s)
				synctest.Wait()
				if len(woken) != len(order) {
					t.Errorf("%d of %d waiters were woken", len(woken), len(order))
				}
			})
		})
	}
}
