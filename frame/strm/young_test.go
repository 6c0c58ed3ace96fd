package strm

import (
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// greeting is a report of nothing, on stream 1.
const greeting = "STRM 1=1 2=1 3=4 5={ 1=0 }"

// The ends of a request's further streams, which wait for the answer, wait a little more.
func TestEndsThatWaitedForTheAnswerAreNotRightBehindIt(t *testing.T) {
	c, s := pair(t)
	s.settle = defaultSettle
	s.feed(control(c.Session, opening(1, 3)))
	send(s.Session, 3, "data")
	control(s.Session, eos(3))
	control(s.Session, failed(5))
	start := time.Now()
	wrote(t, control(s.Session, accepting(1, 3)),
		`STRM 1=1 2=1 3=3 4=0 [PRPC 2={ 1=0 } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 4=5 } 10=0 11=0 12="" "ok"]`,
		`STRM 1=3 2=3 3=3 4=0 "data"`, greeting)
	s.events = nil
	wrote(t, s.wakes(t, start, defaultSettle), "STRM 1=5 3=1")
	wrote(t, s.wakes(t, start, reportTime), "STRM 1=3 2=3 3=2") // behind data: nobody has reported it
	wrote(t, s.wakes(t, start, retryAfter), "STRM 1=3 2=3 3=2") // as any CLOSE without an answer
}

// Without a time to settle nothing waits, and a silent peer is asked all the same.
func TestWithoutATimeToSettleNothingWaits(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 1)))
	start := time.Now()
	c.feed(control(s.Session, accepting(1, 1)))
	if c.events[0].frame.Later {
		t.Error("data has to wait")
	}
	send(c.Session, 1, "data")
	wrote(t, c.wakes(t, start, retryAfter), "STRM 1=1 2=1 3=0")
	wrote(t, control(s.Session, frame.Frame{Kind: frame.EOS, Stream: 1}), "STRM 1=1 2=1 3=2")
}
