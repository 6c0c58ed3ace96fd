package actor

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/status"
)

// The reader of In may cut or release a message at once. What the message counts is
// computed before it is sent on In.
func TestAMessageFromInMayBeTruncatedAtOnce(t *testing.T) {
	for i := range 200 {
		s, _ := receiver()
		in := s.In()
		done := make(chan struct{})
		go func() {
			m := <-in
			m.Truncate(0)
			m.Release()
			close(done)
		}()
		arrive(t, s, 500)
		<-done
		if held, _ := s.ReadProgress(); held != 0 {
			t.Fatalf("run %d: all is taken, and %d bytes count as unread", i, held)
		}
	}
}

// Nobody reads a stream that has failed after CloseReceive: what the goroutine that
// feeds a channel has in hand by then goes as well.
func TestCloseReceiveLetsGoWhatIsInHand(t *testing.T) {
	for name, feed := range map[string]func(*Stream){
		"In":      func(s *Stream) { s.cfg.InBuffer = 1; s.In() },
		"Batches": func(s *Stream) { s.Batches() },
		"nothing": func(*Stream) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := receiver()
				feed(s)
				arrive(t, s, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50)
				synctest.Wait()
				s.PeerReset(status.Cancelled, "")
				s.CloseReceive(status.OK)
				synctest.Wait()
				if n, u := s.in.Len(), unread(s); n > 0 || u > 0 {
					t.Errorf("%d messages are kept, %d bytes are unread, and nobody reads them", n, u)
				}
			})
		})
	}
}

// A message that came in fragments is held by the budget for such; once its stream is
// over, and the budget is back, it counts as unread, however it is taken or let go.
func TestAMessageInFragmentsIsUnreadWhenItsStreamIsOver(t *testing.T) {
	const n, piece = 4 << 10, 256
	receive := func(s *Stream) {
		m, _ := s.Receive(noWait)
		m.Release()
	}
	in := func(s *Stream) { s.In() }
	fromIn := func(s *Stream) {
		m := <-s.In()
		m.Release()
	}
	batches := func(s *Stream) { s.Batches() }
	fromBatches := func(s *Stream) {
		b := <-s.Batches()
		b.Release()
	}
	closeReceive := func(s *Stream) { s.CloseReceive(status.OK) }
	nothing := func(*Stream) {}
	for name, c := range map[string]struct{ before, take func(*Stream) }{
		"received":               {nothing, receive},
		"from In":                {nothing, fromIn},
		"from Batches":           {nothing, fromBatches},
		"in hand for In":         {in, fromIn},
		"in hand for Batches":    {batches, fromBatches},
		"dropped":                {nothing, (*Stream).Drop},
		"evicted":                {nothing, func(s *Stream) { s.Evict("no memory") }},
		"closed":                 {nothing, closeReceive},
		"closed, in hand for In": {in, closeReceive},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := receiver()
				s.cfg.InBuffer = 0
				for at := 0; at < n; at += piece {
					if err := fragment(s, make([]byte, piece), at == 0, at+piece == n, n, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				if held, _ := s.ReadProgress(); held < n {
					t.Fatalf("%d bytes are held of %d", held, n)
				}
				c.before(s)
				synctest.Wait()
				s.PeerReset(status.Cancelled, "")
				if _, reserve := l.owed(); reserve != 0 || unread(s) != n+overhead {
					t.Errorf("%d bytes wait to be read: %d are reserved, %d count as unread", n, reserve, unread(s))
				}
				c.take(s)
				synctest.Wait()
				taken, reserve := l.owed()
				if got := fmt.Sprint(unread(s), reserve, taken); got != fmt.Sprint(0, 0, (n+overhead)) {
					t.Errorf("unread, reserved and returned in the end: %s", got)
				}
			})
		})
	}
}

// unread is the credit that is unread.
func unread(s *Stream) int {
	n, _ := s.Unread()
	return n
}
