package strm

import (
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// tick is what the session writes when it is woken at a time.
func tick(s *Session, at time.Time) []byte {
	o := frame.Out{Clock: func() time.Time { return at }}
	s.Tick(&o)
	return flatten(s, &o)
}

// wakes checks the times of Wake, from start on, and calls Tick at each.
func (s *side) wakes(t *testing.T, start time.Time, after time.Duration) []byte {
	t.Helper()
	at := s.Wake()
	if d := at.Sub(start); d < after || d > after+10*time.Second {
		t.Fatalf("it is to be woken after %v, want %v", d, after)
	}
	if early := tick(s.Session, at.Add(-1)); len(early) > 0 || s.Event(new(frame.Frame)) {
		t.Fatalf("it did something before it was time: %q", early)
	}
	b := tick(s.Session, at)
	s.local()
	return b
}

// A window that is full without any report is probed three times, by one message each.
func TestAFullWindowWithoutAnyReportIsProbed(t *testing.T) {
	c, s := pair(t)
	open := opening(1, 1)
	open.Grants[0].Limit = 100
	s.feed(control(c.Session, open))
	c.feed(control(s.Session, accepting(1, 1)))
	c.feed(send(s.Session, 1, "hello")) // else the peer is asked whether it knows the stream
	c.events = nil
	if send(c.Session, 1, strings.Repeat("x", 60)); !c.Wake().IsZero() {
		t.Fatal("a window with room is to be probed")
	}
	for i, want := range []string{"credit stream=1 value=21", "credit stream=1 value=81", "credit stream=1 value=141"} {
		start := time.Now()
		send(c.Session, 1, strings.Repeat("x", 60))
		if b := c.wakes(t, start, retryAfter<<i); len(b) > 0 {
			t.Errorf("a probe writes %q", b)
		}
		c.expect(t, want)
		c.events = nil
		if !c.Wake().IsZero() {
			t.Fatal("probed again, with no message in between")
		}
	}
	if send(c.Session, 1, strings.Repeat("x", 60)); !c.Wake().IsZero() {
		t.Error("a fourth probe")
	}
}

// A peer that reports is not probed, nor is a window without a bound.
func TestAWindowThatIsReportedOnIsNotProbed(t *testing.T) {
	for name, limit := range map[string]uint64{"reported": 100, "no bound": unlimited} {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t)
			open := opening(1, 1)
			open.Grants[0].Limit = limit
			s.feed(control(c.Session, open))
			c.feed(control(s.Session, accepting(1, 1)))
			c.feed(send(s.Session, 1, "hello"))
			send(c.Session, 1, strings.Repeat("x", 100))
			if limit == 100 {
				if c.Wake().IsZero() {
					t.Fatal("it is not watched")
				}
				c.feed(appendFeedback(nil, 1, 1, 50))
			}
			if at := c.Wake(); !at.IsZero() {
				t.Errorf("it is to be woken at %v", at)
			}
			if send(c.Session, 1, strings.Repeat("x", 500)); !c.Wake().IsZero() {
				t.Error("probed though its peer has reported")
			}
		})
	}
}

// A window that is filled before the answer is probed after it.
func TestAWindowThatWasFilledBeforeTheAnswerIsProbed(t *testing.T) {
	c, s := pair(t)
	s.feed(control(c.Session, opening(1, 2)))
	send(s.Session, 3, strings.Repeat("x", 100)) // waits for the answer
	answer := accepting(1, 2)
	answer.Grants[1].Limit = 100
	c.feed(control(s.Session, answer))
	s.events = nil
	s.wakes(t, time.Now(), 0)
	s.expect(t, "credit stream=3 value=1")
}

// A CLOSE that is not answered is sent three times more, unless the stream is reset
// meanwhile or its peer ends it.
func TestACloseWithoutAnAnswerIsRepeated(t *testing.T) {
	const wire = "STRM 1=1 2=1 3=2"
	for name, end := range map[string]func(c *side){
		"never answered": nil,
		"answered":       func(c *side) { c.feed(appendClose(nil, 1, 1)) },
		"unknown":        func(c *side) { c.feed(appendRST(nil, 1)) },
		"reset":          func(c *side) { control(c.Session, frame.Frame{Kind: frame.Reset, Stream: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := establishedPair(t, 1, 1)
			for i := range maxRetries {
				start := time.Now()
				if i == 0 {
					wrote(t, control(c.Session, eos(1)), wire)
				}
				wrote(t, c.wakes(t, start, 0), wire)
				if i == 1 && end != nil {
					end(c)
					break
				}
			}
			if at := c.Wake(); !at.IsZero() {
				t.Errorf("it is to be woken again, at %v", at)
			}
		})
	}
}
