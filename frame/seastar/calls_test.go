package seastar

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// oneCall is a server's session that serves one call, of stream 1, message 1,
// verb 7.
func oneCall(t *testing.T, rs ...record) frame.Session {
	t.Helper()
	s := mustServe(t, &Protocol{Now: newClock().now}, rs...)
	in := plainRequest(7, 1, []byte("ask"))
	if has(rs, featTimeout) {
		in = append([]byte{100, 0, 0, 0, 0, 0, 0, 0}, in...)
	}
	lines, err := events(s, in)
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	return s
}

func user(id int64, text string) []byte {
	return plainResponse(-id, appendException(nil, exceptionUser, text))
}

// Each way in which a handler's stream can end, and the response that it makes.
func TestEveryCallIsAnswered(t *testing.T) {
	end := func(c status.Code, reason string) *frame.Frame {
		return &frame.Frame{Kind: frame.EOS, Stream: 1, Code: c, Reason: reason}
	}
	ok := end(status.OK, "")
	accept := &frame.Frame{Kind: frame.Accept, Stream: 1}
	noWait := metadata.MD{{Key: NoWait, Value: "1"}}
	for name, c := range map[string]struct {
		accept  *frame.Frame
		replies []string
		end     *frame.Frame
		timeout bool
		want    []byte
	}{
		"a reply":                     {accept: accept, replies: []string{"hi"}, end: ok, want: plainResponse(1, []byte("hi"))},
		"an empty reply":              {accept: accept, replies: []string{""}, end: ok, want: plainResponse(1, nil)},
		"none":                        {accept: accept, end: ok, want: plainResponse(1, nil)},
		"a reply with the acceptance": {accept: &frame.Frame{Kind: frame.Accept, Stream: 1, Payload: []byte("hi")}, end: ok, want: plainResponse(1, []byte("hi"))},
		"two replies":                 {accept: accept, replies: []string{"a", "b"}, end: ok, want: user(1, "INTERNAL: a call with more than one reply")},
		"an error":                    {accept: accept, end: end(status.Unknown, "boom"), want: user(1, "boom")},
		"an error after a reply":      {accept: accept, replies: []string{"hi"}, end: end(status.Unknown, "boom"), want: user(1, "boom")},
		"an error with a code":        {accept: accept, end: end(status.NotFound, "no key"), want: user(1, "NOT_FOUND: no key")},
		"an error without a text":     {accept: accept, end: end(status.Unknown, ""), want: user(1, "UNKNOWN")},
		"arguments that don't decode": {accept: accept, end: end(status.InvalidArgument, "at byte 3"), want: user(1, "INVALID_ARGUMENT: at byte 3")},
		"a handler's own unimplemented": {
			accept: accept, end: end(status.Unimplemented, "not yet"), want: user(1, "UNIMPLEMENTED: not yet")},
		"no handler": {
			end:  &frame.Frame{Kind: frame.Reject, Stream: 1, Code: status.Unimplemented, NotProcessed: true},
			want: plainResponse(-1, appendException(nil, exceptionUnknownVerb, "\x07\x00\x00\x00\x00\x00\x00\x00"))},
		"refused": {
			end:  &frame.Frame{Kind: frame.Reject, Stream: 1, Code: status.Refused, Reason: "too many", NotProcessed: true},
			want: user(1, "REFUSED: too many")},
		"a panic": {
			accept: accept, replies: []string{"hi"}, end: &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Internal, Reason: "the handler panicked"},
			want: user(1, "INTERNAL: the handler panicked")},
		"a deadline of the handler's own": {
			accept: accept, end: &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.DeadlineExceeded, Reason: "late"}, want: user(1, "DEADLINE_EXCEEDED: late")},
		"the caller's deadline": {
			accept: accept, end: &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.DeadlineExceeded}, timeout: true, want: nil},
		"an end for want of time, before the deadline": {
			accept: accept, end: end(status.DeadlineExceeded, "backend"), timeout: true, want: user(1, "DEADLINE_EXCEEDED: backend")},
		"no reply":                     {accept: &frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: noWait}, replies: []string{"hi"}, end: ok, want: nil},
		"no reply, and an error":       {accept: &frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: noWait}, end: end(status.Unknown, "boom"), want: nil},
		"no reply, by the end":         {accept: accept, end: &frame.Frame{Kind: frame.EOS, Stream: 1, Metadata: noWait}, want: nil},
		"no reply, and a panic":        {accept: &frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: noWait}, end: &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Internal}, want: nil},
		"a reason longer than a frame": {accept: accept, end: end(status.Unknown, strings.Repeat("x", 100_000)), want: user(1, strings.Repeat("x", 100_000))},
	} {
		t.Run(name, func(t *testing.T) {
			base := pool.Outstanding()
			var rs []record
			if c.timeout {
				rs = []record{{featTimeout, ""}}
			}
			s := oneCall(t, rs...)
			var got []byte
			if c.accept != nil {
				got = append(got, control(s, c.accept)...)
			}
			for _, r := range c.replies {
				got = append(got, send(s, 1, []byte(r))...)
			}
			got = append(got, control(s, c.end)...)
			equalBytes(t, "the response", got, c.want)
			if again := control(s, c.end); len(again) > 0 {
				t.Errorf("a second end has written %x", again)
			}
			if late := send(s, 1, []byte("late")); len(late) > 0 {
				t.Errorf("a reply after the end has written %x", late)
			}
			if n := pool.Outstanding() - base; n != 0 {
				t.Errorf("%d messages are still held", n)
			}
		})
	}
}

// A reply that comes in pieces is written in one.
func TestALongReplyIsWrittenWhole(t *testing.T) {
	reply := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, n := range []int{1000, 64 << 10, len(reply) - 1} {
		s := oneCall(t)
		if got := pieces(s, 1, reply, n); len(got) != 0 {
			t.Fatalf("%d bytes before the end", len(got))
		}
		equalBytes(t, "the response", control(s, &frame.Frame{Kind: frame.EOS, Stream: 1}), plainResponse(1, reply))
	}
}

// The handler's time is measured where the client has asked for it; answers that
// no handler has made say that there is none.
func TestTheHandlersTimeIsSent(t *testing.T) {
	c := newClock()
	for took, want := range map[time.Duration]uint32{
		0: 0, 5231 * time.Microsecond: 5231, 2 * time.Hour: notMeasured, -time.Second: notMeasured,
	} {
		s := mustServe(t, &Protocol{Now: c.now}, record{featHandlerDuration, ""})
		if _, err := events(s, plainRequest(7, 1, nil)); err != nil {
			t.Fatal(err)
		}
		c.advance(took)
		got := control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})
		if d := binary.LittleEndian.Uint32(got[responseLen:]); len(got) != responseLen+durationLen || d != want {
			t.Errorf("%v is sent as %d, want %d", took, d, want)
		}
	}
}

// Message ids start at 1 and rise. Anything else ends the connection.
func TestMessageIdsMustRise(t *testing.T) {
	for _, ids := range [][]int64{{0}, {-1}, {math.MinInt64}, {1, 1}, {5, 4}, {1, 2, 3, 2}} {
		s := mustServe(t, &Protocol{})
		var in []byte
		for _, id := range ids {
			in = append(in, plainRequest(1, id, nil)...)
		}
		lines, err := events(s, in)
		if codeOf(err) != status.Protocol || len(lines) != 3*(len(ids)-1) {
			t.Errorf("%v: %d events and %v", ids, len(lines), err)
		}
	}
	s := mustServe(t, &Protocol{})
	lines, err := events(s, append(plainRequest(1, 7, nil), plainRequest(math.MaxUint64, math.MaxInt64, nil)...))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "ids with gaps", lines, []string{
		`1 open "#1" unary=true value=0x0 left=0s grants=1`, "1 data ", "1 eos OK",
		`3 open "#18446744073709551615" unary=true value=0x0 left=0s grants=1`, "3 data ", "3 eos OK",
	})
	equalBytes(t, "the response", control(s, &frame.Frame{Kind: frame.EOS, Stream: 3}), plainResponse(math.MaxInt64, nil))
}

// A time left that no clock can count is cut to a year.
func TestTimesLeftAreBounded(t *testing.T) {
	for ms, want := range map[uint64]time.Duration{
		0: 0, 1: time.Millisecond, 1500: 1500 * time.Millisecond, math.MaxUint64: 365 * 24 * time.Hour,
		math.MaxInt64: 365 * 24 * time.Hour,
	} {
		s := mustServe(t, &Protocol{}, record{featTimeout, ""})
		l := listener{s: s}
		if err := l.feed(append(binary.LittleEndian.AppendUint64(nil, ms), plainRequest(1, 1, nil)...)); err != nil {
			t.Fatal(err)
		}
		if got := l.frames[0].Deadline; got != want {
			t.Errorf("%d ms is %v, want %v", ms, got, want)
		}
	}
	for d, want := range map[time.Duration]uint64{
		1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, 1500 * time.Millisecond: 1500,
		math.MaxInt64: 365 * 24 * 3600 * 1000,
	} {
		if got := millis(d); got != want {
			t.Errorf("%v is sent as %d ms, want %d", d, got, want)
		}
	}
}

// A request over the limit is answered, not read into memory, and the next one is
// served.
func TestARequestOverTheLimitIsAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		p    *Protocol
		n    int
		text string
	}{
		"the message limit": {&Protocol{}, testLimit + 1, "std::runtime_error (request size 1048577 large than memory limit 1048576, verb 9)"},
		"the memory limit":  {&Protocol{MaxMemory: 100}, 304, "std::runtime_error (request size 304 large than memory limit 100, verb 9)"},
		"with what each costs": {
			&Protocol{MaxMemory: 1000, RequestSize: 401, Bloat: 3}, 200, "std::runtime_error (request size 1001 large than memory limit 1000, verb 9)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustServe(t, c.p)
			l := listener{s: s}
			if err := l.feed(append(plainRequest(9, 1, make([]byte, c.n)), plainRequest(9, 2, []byte("x"))...)); err != nil {
				t.Fatal(err)
			}
			equal(t, "events", l.lines, []string{
				"0 answer 1 TOO_LARGE " + c.text,
				`1 open "#9" unary=true value=0x0 left=0s grants=1`, "1 data 78", "1 eos OK",
			})
			equalBytes(t, "the answer", control(s, &l.frames[0]), user(1, c.text))
		})
	}
}

// Calls beyond the memory limit wait for those being served on all connections, in
// the order in which they came.
func TestCallsWaitForMemory(t *testing.T) {
	c := newClock()
	p := &Protocol{MaxMemory: 100, Now: c.now}
	a, b := mustServe(t, p), mustServe(t, p)
	if lines, err := events(a, plainRequest(1, 1, make([]byte, 60))); err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	if a.Full() != nil {
		t.Fatal("a reader waits though nothing else has come")
	}
	// b's first call fits, its second does not; what follows it is not looked at.
	in := append(plainRequest(1, 1, make([]byte, 40)), plainRequest(1, 2, make([]byte, 50))...)
	in = append(in, plainRequest(1, 3, []byte("x"))...)
	l := listener{s: b}
	if err := l.feed(in); err != nil || len(l.lines) != 3 {
		t.Fatal(l.lines, err)
	}
	wait := b.Full()
	if wait == nil || closed(wait) {
		t.Fatal("the second call has room")
	}
	if _, ok := b.Begun(); ok {
		t.Error("the peer is to complete a frame that we let wait")
	}
	control(b, &frame.Frame{Kind: frame.EOS, Stream: 1})
	if closed(wait) {
		t.Fatal("40 bytes free are enough for 50")
	}
	// a's next call, which would fit, is behind b's.
	if lines, err := events(a, plainRequest(1, 2, make([]byte, 10))); err != nil || len(lines) != 0 {
		t.Fatal(lines, err)
	}
	control(a, &frame.Frame{Kind: frame.EOS, Stream: 1})
	if !closed(wait) || !closed(a.Full()) {
		t.Fatal("100 bytes free are not enough")
	}
	if err := l.feed(nil); err != nil || len(l.lines) != 9 {
		t.Fatal(l.lines, err)
	}
	if b.Full() != nil {
		t.Fatal("reading still waits")
	}
	for _, s := range []frame.Session{a, b} {
		s.Closed()
		s.Closed()
	}
	if p.budget.used != 0 || len(p.budget.waiters) != 0 {
		t.Errorf("%d bytes in use, %d waiters after the end of all", p.budget.used, len(p.budget.waiters))
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A connection that ends while it waits for memory, or when it has just acquired it,
// holds up no other.
func TestAConnectionThatEndsReleasesItsMemory(t *testing.T) {
	for _, first := range []string{"waiting", "admitted", "acquired"} {
		t.Run(first, func(t *testing.T) {
			p := &Protocol{MaxMemory: 100}
			a, b, c := mustServe(t, p), mustServe(t, p), mustServe(t, p)
			for _, s := range []frame.Session{a, b, c} {
				if _, err := events(s, plainRequest(1, 1, make([]byte, 70))); err != nil {
					t.Fatal(err)
				}
			}
			if first != "waiting" {
				control(a, &frame.Frame{Kind: frame.EOS, Stream: 1}) // b acquires it
			}
			b.Closed()
			if first == "admitted" {
				if _, err := events(b, nil); err != nil {
					t.Fatal(err)
				}
			}
			if first == "waiting" {
				control(a, &frame.Frame{Kind: frame.EOS, Stream: 1})
			}
			if !closed(c.Full()) {
				t.Error("the next waiter does not acquire the memory")
			}
			c.Closed()
			a.Closed()
			if p.budget.used != 0 {
				t.Errorf("%d bytes are in use", p.budget.used)
			}
		})
	}
}

// The time waited for memory counts: a call whose deadline has passed is not served.
func TestTheTimeWaitedCountsTowardsACallsDeadline(t *testing.T) {
	for waited, want := range map[time.Duration]string{
		0:                     `1 open "#1" unary=true value=0x0 left=100ms grants=1`,
		40 * time.Millisecond: `1 open "#1" unary=true value=0x0 left=60ms grants=1`,
		time.Second:           "",
	} {
		c := newClock()
		p := &Protocol{MaxMemory: 100, Now: c.now}
		a, b := mustServe(t, p), mustServe(t, p, record{featTimeout, ""})
		if _, err := events(a, plainRequest(1, 1, make([]byte, 70))); err != nil {
			t.Fatal(err)
		}
		l := listener{s: b}
		if err := l.feed(append([]byte{100, 0, 0, 0, 0, 0, 0, 0}, plainRequest(1, 1, make([]byte, 70))...)); err != nil {
			t.Fatal(err)
		}
		c.advance(waited)
		control(a, &frame.Frame{Kind: frame.EOS, Stream: 1})
		if err := l.feed(nil); err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(l.lines) > 0 {
			got = l.lines[0]
		}
		if got != want {
			t.Errorf("after %v: %q, want %q", waited, got, want)
		}
		b.Closed()
		if p.budget.used != 0 {
			t.Errorf("%d bytes are in use", p.budget.used)
		}
	}
}

// A transport that does not pause can't fill memory.
func TestReadingOnWhilePausedIsAnError(t *testing.T) {
	p := &Protocol{MaxMemory: 100}
	a, b := mustServe(t, p), mustServe(t, p)
	if _, err := events(a, plainRequest(1, 1, make([]byte, 70))); err != nil {
		t.Fatal(err)
	}
	l := listener{s: b}
	err := l.feed(plainRequest(1, 1, make([]byte, 70)))
	for n := 0; err == nil; n += 32 << 10 {
		if n > 2*maxHeld {
			t.Fatalf("%d bytes are held", n)
		}
		err = l.feed(make([]byte, 32<<10))
	}
	if codeOf(err) != status.Internal {
		t.Error(err)
	}
}

// calling is a client's session that has made n calls, of verbs 1 and up.
func calling(t testing.TB, s frame.Session, n int) {
	t.Helper()
	for i := range n {
		id := uint64(2*i + 1)
		got := control(s, &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: fmt.Sprintf("#%d", i+1), Grants: make([]frame.Grant, 1)})
		got = append(got, send(s, id, []byte("ask"))...)
		got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: id})...)
		if want := plainRequest(uint64(i+1), int64(i+1), []byte("ask")); !bytes.Equal(got, want) {
			t.Fatalf("request %x, want %x", got, want)
		}
	}
}

// What comes of each response, to the second of three calls.
func TestWhatAResponseBecomes(t *testing.T) {
	exc := func(kind uint32, p []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, kind)
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	accept := "3 accept value=0x0 grants=1"
	for name, c := range map[string]struct {
		in   []byte
		want []string
		code status.Code
	}{
		"a reply":              {in: plainResponse(2, []byte("hi")), want: []string{accept, "3 data 6869", "3 eos OK"}},
		"an empty one":         {in: plainResponse(2, nil), want: []string{accept, "3 data ", "3 eos OK"}},
		"an exception":         {in: plainResponse(-2, exc(0, []byte("boom"))), want: []string{accept, "3 eos UNKNOWN boom"}},
		"one without a text":   {in: plainResponse(-2, exc(0, nil)), want: []string{accept, "3 eos UNKNOWN"}},
		"an unknown verb":      {in: plainResponse(-2, exc(1, []byte("\x02\x00\x00\x00\x00\x00\x00\x00"))), want: []string{"3 reject UNIMPLEMENTED unknown verb 2 notprocessed=true"}},
		"an odd unknown verb":  {in: plainResponse(-2, exc(1, []byte("\x02"))), want: []string{"3 reject UNIMPLEMENTED unknown verb notprocessed=true"}},
		"an unknown kind":      {in: plainResponse(-2, exc(9, []byte("boom"))), want: []string{accept, "3 eos UNKNOWN unknown exception of kind 9"}},
		"more text than there": {in: plainResponse(-2, []byte("\x00\x00\x00\x00\x05\x00\x00\x00boom")), want: []string{accept, "3 eos PROTOCOL an exception that can't be decoded"}},
		"4 GiB of text":        {in: plainResponse(-2, []byte("\x00\x00\x00\x00\xff\xff\xff\xffboom")), want: []string{accept, "3 eos PROTOCOL an exception that can't be decoded"}},
		"a verb beyond it":     {in: plainResponse(-2, []byte("\x01\x00\x00\x00\x08\x00\x00\x00boom")), want: []string{accept, "3 eos PROTOCOL an exception that can't be decoded"}},
		"no exception":         {in: plainResponse(-2, []byte("\x00\x00\x00")), want: []string{accept, "3 eos PROTOCOL an exception that can't be decoded"}},
		"too long a text":      {in: plainResponse(-2, exc(0, bytes.Repeat([]byte("x"), 100_000))), want: []string{accept, "3 eos UNKNOWN " + strings.Repeat("x", maxText-8)}},
		"too long a reply":     {in: plainResponse(2, make([]byte, testLimit+1)), want: []string{accept, "3 eos TOO_LARGE a reply of 1048577 bytes"}},
		"twice":                {in: append(plainResponse(2, nil), plainResponse(2, []byte("x"))...), want: []string{accept, "3 data ", "3 eos OK"}},
		"to none":              {in: plainResponse(0, nil), code: status.StreamState},
		"to one never made":    {in: plainResponse(4, nil), code: status.StreamState},
		"an error of the same": {in: plainResponse(-4, nil), code: status.StreamState},
		"to the least number":  {in: plainResponse(math.MinInt64, nil), code: status.StreamState},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustDial(t, &Protocol{}, 0)
			calling(t, s, 3)
			lines, err := events(s, c.in)
			equal(t, "events", lines, c.want)
			if codeOf(err) != c.code {
				t.Errorf("it ends with %v, want %v", err, c.code)
			}
			if c.code != 0 {
				return
			}
			lines, err = events(s, plainResponse(3, []byte("next")))
			if err != nil || len(lines) != 3 {
				t.Errorf("the next call has %q, %v", lines, err)
			}
		})
	}
}

func TestRepliesMayComeInAnyOrder(t *testing.T) {
	s := mustDial(t, &Protocol{}, 0)
	calling(t, s, 3)
	lines, err := events(s, bytes.Join([][]byte{plainResponse(3, nil), user(1, "no"), plainResponse(2, nil)}, nil))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "events", lines, []string{
		"5 accept value=0x0 grants=1", "5 data ", "5 eos OK",
		"1 accept value=0x0 grants=1", "1 eos UNKNOWN no",
		"3 accept value=0x0 grants=1", "3 data ", "3 eos OK",
	})
}

// A canceled call is not written, or its reply is ignored.
func TestACanceledCall(t *testing.T) {
	open := &frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "#1", Grants: make([]frame.Grant, 1)}
	reset := &frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled}
	s := mustDial(t, &Protocol{}, 0)
	got := append(control(s, open), control(s, reset)...)
	got = append(got, send(s, 1, []byte("late"))...)
	got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})...)
	equalBytes(t, "before it was written", got, nil)

	s = mustDial(t, &Protocol{}, 0)
	calling(t, s, 2)
	equalBytes(t, "after it was written", control(s, reset), nil)
	lines, err := events(s, append(plainResponse(1, []byte("hi")), plainResponse(2, nil)...))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "events", lines, []string{"3 accept value=0x0 grants=1", "3 data ", "3 eos OK"})
	if n := len(s.(*client).calls) + len(s.(*client).pending); n != 0 {
		t.Errorf("%d calls are remembered", n)
	}
}

// A request that comes in pieces is written in one, when all of it is there, and
// its message id is given then: ids rise on the wire.
func TestALongRequestIsWrittenWhole(t *testing.T) {
	s := mustDial(t, &Protocol{}, 0)
	for _, id := range []uint64{1, 3} {
		control(s, &frame.Frame{Kind: frame.Open, Stream: id, Unary: true, Method: fmt.Sprintf("#%d", id), Grants: make([]frame.Grant, 1)})
	}
	long := bytes.Repeat([]byte("0123456789"), 10_000)
	m := pool.Copy(long)
	part := func(off, n int) []byte {
		return written(func(o *frame.Out) { fragment(s, o, 1, m, off, n) })
	}
	equalBytes(t, "the first piece", part(0, 50_000), nil)
	equalBytes(t, "the other call", send(s, 3, []byte("ask")), plainRequest(3, 1, []byte("ask")))
	equalBytes(t, "the last piece", part(50_000, 50_000), plainRequest(1, 2, long))
}

// The time left is what is left when the request is written; one that has none
// left is not.
func TestTheTimeLeftIsTakenWhenTheRequestIsWritten(t *testing.T) {
	for waited, want := range map[time.Duration]uint64{0: 100, 30 * time.Millisecond: 70, 99*time.Millisecond + 1: 1, 100 * time.Millisecond: 0, time.Hour: 0} {
		c := newClock()
		s := mustDial(t, &Protocol{Now: c.now}, 0, record{featTimeout, ""})
		got := control(s, &frame.Frame{Kind: frame.Open, Stream: 1, Unary: true, Method: "#1", Deadline: 100 * time.Millisecond, Grants: make([]frame.Grant, 1)})
		c.advance(waited)
		got = append(got, send(s, 1, nil)...)
		got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})...)
		var expect []byte
		if want > 0 {
			expect = append(binary.LittleEndian.AppendUint64(nil, want), plainRequest(1, 1, nil)...)
		}
		equalBytes(t, waited.String(), got, expect)
	}
}

// What the wire can't carry is refused before it is written.
func TestOpensThatTheProtocolCantCarry(t *testing.T) {
	for name, f := range map[string]frame.Frame{
		"a stream":            {Method: "#1"},
		"a name":              {Method: "pkg.Service/Method", Unary: true},
		"no name":             {Unary: true},
		"a number too large":  {Method: "#18446744073709551616", Unary: true},
		"a number below zero": {Method: "#-1", Unary: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustDial(t, &Protocol{}, 0)
			f.Kind, f.Stream, f.Grants = frame.Open, 1, make([]frame.Grant, 1)
			got := control(s, &f)
			lines := locals(s)
			if len(lines) != 1 || !strings.HasPrefix(lines[0], "1 reject UNIMPLEMENTED") || !strings.HasSuffix(lines[0], "notprocessed=true") {
				t.Errorf("it is answered with %q", lines)
			}
			got = append(got, send(s, 1, []byte("ask"))...)
			got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})...)
			equalBytes(t, "written", got, nil)
			if lines := locals(s); lines != nil {
				t.Errorf("and then with %q", lines)
			}
		})
	}
}

// A call without a reply is over when it was written. Seastar answers even it with
// an exception if it does not know the verb.
func TestACallWithoutAReply(t *testing.T) {
	s := mustDial(t, &Protocol{}, 0)
	got := control(s, &frame.Frame{
		Kind: frame.Open, Stream: 1, Unary: true, Method: "#6", Grants: make([]frame.Grant, 1), Metadata: metadata.MD{{Key: NoWait}},
	})
	got = append(got, send(s, 1, []byte("ask"))...)
	equal(t, "before its end", locals(s), nil)
	got = append(got, control(s, &frame.Frame{Kind: frame.EOS, Stream: 1})...)
	equalBytes(t, "written", got, plainRequest(6, 1, []byte("ask")))
	equal(t, "events", locals(s), []string{"1 accept value=0x0 grants=1", "1 eos OK"})
	lines, err := events(s, plainResponse(-1, appendException(nil, exceptionUnknownVerb, "\x06\x00\x00\x00\x00\x00\x00\x00")))
	if err != nil || lines != nil {
		t.Errorf("the exception is %q, %v", lines, err)
	}
}

// A large payload is handed on as it comes; a small one is put together.
func TestPayloadsAreNotGathered(t *testing.T) {
	for _, n := range []int{wholeMax, 1 << 20} {
		s := mustServe(t, &Protocol{})
		l := listener{s: s}
		in := plainRequest(1, 1, make([]byte, n))
		for len(in) > 0 {
			k := min(len(in), 1000)
			if err := l.feed(in[:k]); err != nil {
				t.Fatal(err)
			}
			in = in[k:]
		}
		if want := min(1000, n); n > wholeMax && l.max > want || n <= wholeMax && l.max != n {
			t.Errorf("%d bytes have come in pieces of up to %d", n, l.max)
		}
	}
}

// The names of verbs are cached, a bounded number of them.
func TestNamesAreRememberedWithinBounds(t *testing.T) {
	s := mustServe(t, &Protocol{}).(*server)
	for i := range uint64(2 * maxNames) {
		if got, want := s.method(i), fmt.Sprintf("#%d", i); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	if len(s.names) != maxNames {
		t.Errorf("%d names", len(s.names))
	}
}
