package strm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A handler may end one of its streams before the group's answer is written. What was
// sent on it and its end follow the answer, and the handler gets the peer's end, or an
// error if there is no answer.
func TestTheEndOfAnOfferedStreamFollowsTheAnswer(t *testing.T) {
	answer := `STRM 1=1 2=1 3=3 4=0 [PRPC 2={ 1=0 } 3=0 4=1 8={ 1=1 2=1 3=1 4=3 } 10=0 11=0 12="" "reply"]`
	late := `STRM 1=3 2=3 3=3 4=0 "more data"`
	offers := func() (c, s *side) {
		c, s = pair(t)
		s.feed(control(c.Session, opening(1, 2)))
		s.events = nil
		f := accepting(1, 2)
		f.FollowsData, f.Payload = true, nil
		wrote(t, control(s.Session, f))
		wrote(t, send(s.Session, 3, "more data"))
		return c, s
	}
	for _, k := range []struct {
		name   string
		ends   []frame.Frame
		wire   string
		client []string
		server []string
	}{
		{
			"cleanly", []frame.Frame{eos(3)}, `STRM 1=3 2=3 3=2`,
			[]string{"eos stream=3", "stop stream=3"}, []string{"eos stream=3"},
		},
		{
			"as a failure", []frame.Frame{failed(3)}, `STRM 1=3 3=1`,
			[]string{`reset stream=3 code=ABORTED reason="Received RST frame"`}, []string{"eos stream=3"},
		},
		{
			"cleanly, and then reset", []frame.Frame{eos(3), abort(3)}, `STRM 1=3 2=3 3=2`,
			[]string{"eos stream=3", "stop stream=3"}, nil,
		},
	} {
		t.Run(k.name, func(t *testing.T) {
			c, s := offers()
			for _, f := range k.ends {
				wrote(t, control(s.Session, f))
			}
			ans := send(s.Session, 1, "reply")
			wrote(t, ans, answer, late, k.wire)
			c.feed(ans)
			c.expect(t, append([]string{
				`accept stream=1 {limit=0 noReceive=false} {limit=0 noReceive=false} payload="reply"`,
				`data stream=3 total=9 first=true last=true "more data"`,
			}, k.client...)...)
			if len(c.out) == 0 { // the answer to an RST is the session's own
				c.out = control(c.Session, eos(3))
			}
			s.feed(c.out)
			s.expect(t, k.server...)
			if c.left() != 1 || s.left() != 1 {
				t.Errorf("%d and %d streams are left", c.left(), s.left())
			}
		})
	}
	_, s := offers()
	wrote(t, control(s.Session, eos(3)))
	control(s.Session, frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled, Reason: "gone"})
	s.feed(nil)
	s.expect(t, `reset stream=3 code=CANCELLED reason="gone"`)
	s.empty(t)
}

// A slow server answers calls after their deadlines, a burst in a row. That is no flood,
// since each was requested.
func TestLateAnswersToCanceledCallsAreNoFlood(t *testing.T) {
	c, s := pair(t)
	const n = 3 * maxUseless
	var late []byte
	for i := range uint64(n) {
		s.feed(calling(c.Session, 1+2*i, "request"))
		control(c.Session, abort(1+2*i))
		if i%2 == 0 {
			late = append(late, replying(s.Session, 1+2*i, "reply")...)
		} else {
			late = append(late, control(s.Session, frame.Frame{Kind: frame.Reject, Stream: 1 + 2*i, Code: status.NotFound})...)
		}
	}
	c.feed(late)
	c.expect(t)
	c.empty(t)
	// Each canceled call allowed one answer.
	one := replyOf(t, 1)
	for range maxUseless {
		c.feed(one)
	}
	c.expect(t)
	c.feed(one)
	if !errors.Is(c.err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
		t.Errorf("%v", c.err)
	}
}

// A call that was never written allows no late answer.
func TestCallsThatWereNotWrittenAllowNoLateAnswers(t *testing.T) {
	c, _ := pair(t)
	for i := range uint64(maxUseless) {
		control(c.Session, frame.Frame{Kind: frame.Open, Stream: 1 + 2*i, Unary: true, Method: "a.B/C"})
		control(c.Session, abort(1+2*i))
	}
	for range maxUseless + 1 {
		c.feed(replyOf(t, 1))
	}
	if !errors.Is(c.err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
		t.Errorf("%v", c.err)
	}
}

func replyOf(t *testing.T, id int) []byte {
	t.Helper()
	return parseShown(t, fmt.Sprintf(`PRPC 2={ 1=0 } 4=%d "x"`, id))
}

// The last frame of CLOSE, CLOSE, RST is for a stream that was removed. Many streams that
// end at once, in any way, are no flood of such frames.
func TestManyStreamsThatEndAtOnceAreNoFlood(t *testing.T) {
	const n = 3 * maxUseless
	ids := func(f func(id uint64)) {
		for i := range uint64(n) {
			f(1 + 2*i)
		}
	}
	all := func(s *side, f func(id uint64) frame.Frame) []byte {
		var b []byte
		ids(func(id uint64) { b = append(b, control(s.Session, f(id))...) })
		return b
	}
	for _, k := range []struct {
		name string
		run  func(c, s *side)
	}{
		{"one side closes", func(c, s *side) {
			s.feed(all(c, eos))
			c.feed(all(s, eos))
		}},
		{"both close at once", func(c, s *side) {
			b := all(s, eos)
			s.feed(all(c, eos))
			c.feed(b)
		}},
		{"one side resets", func(c, s *side) { s.feed(all(c, abort)) }},
		{"the handlers fail", func(c, s *side) { c.feed(all(s, failed)) }},
		{"closes meet resets", func(c, s *side) {
			b := all(s, abort)
			s.feed(all(c, eos))
			c.feed(b)
		}},
		{"closed inside a message", func(c, s *side) {
			var b []byte
			ids(func(id uint64) {
				m := pool.New(80)
				b = append(b, written(c.Session, func(o *frame.Out) { fragment(c, o, id, m, 0, 40) })...)
				b = append(b, control(c.Session, eos(id))...)
			})
			s.feed(b)
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			c, s := pair(t)
			ids(func(id uint64) {
				s.feed(control(c.Session, opening(id, 1)))
				c.feed(control(s.Session, accepting(id, 1)))
			})
			k.run(c, s)
			for len(c.out) > 0 || len(s.out) > 0 {
				b := s.out
				s.out = nil
				c.feed(b)
				b = c.out
				c.out = nil
				s.feed(b)
			}
			if c.err != nil || s.err != nil {
				t.Errorf("client: %v, server: %v", c.err, s.err)
			}
			c.empty(t)
			s.empty(t)
		})
	}
}

// These streams never existed.
func TestResetsOfUnknownStreamsAreAFlood(t *testing.T) {
	_, s := establishedPair(t, 1, 1)
	for range maxUseless + 1 {
		s.feed(appendRST(nil, 99))
	}
	if !errors.Is(s.err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
		t.Errorf("%v", s.err)
	}
}

// A CLOSE that is not answered can be repeated. Then an RST is the end too: the peer has
// none of the stream any more. Inside a message it is none.
func TestARepeatedCloseMayBeAnsweredByAnRST(t *testing.T) {
	for _, k := range []struct {
		name, want string
		again      bool
		piece      bool
	}{
		{"once", `reset stream=1 code=ABORTED reason="Received RST frame"`, false, false},
		{"twice", "eos stream=1", true, false},
		{"twice, inside a message", `reset stream=1 code=ABORTED reason="Received RST frame"`, true, true},
	} {
		t.Run(k.name, func(t *testing.T) {
			c, s := establishedPair(t, 1, 1)
			wrote(t, control(c.Session, eos(1)), "STRM 1=1 2=1 3=2")
			if k.piece {
				c.feed(written(s.Session, func(o *frame.Out) { fragment(s, o, 1, pool.New(80), 0, 40) }))
				c.events = nil
			}
			if k.again {
				wrote(t, tick(c.Session, c.Wake()), "STRM 1=1 2=1 3=2")
			}
			c.feed(appendRST(nil, 1))
			c.expect(t, k.want)
			if c.left() != 0 {
				t.Errorf("%d streams are left", c.left())
			}
		})
	}
}
