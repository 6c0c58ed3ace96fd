package strm

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A brpc server is not told that a call was given up, and counts it until its handler is
// done. A client that goes on calling, with deadlines shorter than the handlers take, has
// more and more of its calls refused. So once a server has said that there are too many
// (ELIMIT), what was given up counts as open until it is answered, and there are no more open
// than there were then.

// owed is what the peer has still to answer, though it was given up. It is under the session's
// lock. The streams among them are table.givenUp.
type owed struct {
	calls map[int64]struct{} // by correlation_id
	limit int                // while something is owed: what may be open, that included; 0: no limit
}

// growEvery is after how long the limit is raised by one. The peer's own may have changed, or
// may be one method's.
const growEvery = time.Second

// maxOwed is how many calls are kept in mind that a server never answers.
const maxOwed = 1 << 16

func (w *owed) add(correlation int64) {
	if w.calls == nil {
		w.calls = map[int64]struct{}{}
	}
	if len(w.calls) < maxOwed {
		w.calls[correlation] = struct{}{}
	}
}

// settleGivenUp no longer counts st as given up.
func (t *table) settleGivenUp(st *stream) {
	if st.givenUp {
		st.givenUp = false
		t.givenUp--
	}
}

// owes is how many streams and calls are owed, under the lock.
func (s *Session) owes() int { return len(s.owed.calls) + s.table.givenUp }

// Allows implements frame.Session.
func (s *Session) Allows(open, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, owes := s.owed.limit, s.owes()
	return limit == 0 || owes == 0 || open+owes+n <= limit
}

// answeredLate notes the answer to what may have been given up.
func (s *Session) answeredLate(correlation int64) {
	s.mu.Lock()
	delete(s.owed.calls, correlation)
	limited := s.owed.limit > 0
	s.mu.Unlock()
	if limited {
		s.emit(frame.Frame{Kind: frame.Freed})
	}
}

// refusedForTooMany limits what is open to what there is. The request that was refused is not
// among it any more.
func (s *Session) refusedForTooMany() error {
	s.mu.Lock()
	limited := s.owes() > 0
	if limited {
		open := s.owes()
		for _, st := range s.table.streams {
			if !st.givenUp && !st.is(discarding) { // else it is over for the kernel
				open++
			}
		}
		s.owed.limit = max(open, 1)
	}
	s.mu.Unlock()
	if !limited {
		return nil
	}
	return s.callWriter() // for grow to be woken
}

// grow raises the limit when it is time to, and drops it when nothing is owed.
func (s *Session) grow(now time.Time) {
	if s.out.growAt.IsZero() || s.out.growAt.After(now) {
		return
	}
	s.mu.Lock()
	if s.owes() == 0 {
		s.owed.limit, s.out.growAt = 0, time.Time{}
	} else {
		s.owed.limit++
		s.out.growAt = now.Add(growEvery)
	}
	s.mu.Unlock()
	s.emitEvent(frame.Frame{Kind: frame.Freed})
}
