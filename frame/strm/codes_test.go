package strm

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/status"
)

// allCodes are the codes with a name.
func allCodes() []status.Code {
	var cs []status.Code
	for c := status.Code(0); c < status.FirstAppCode; c++ {
		if !strings.HasPrefix(c.String(), "CODE_") {
			cs = append(cs, c)
		}
	}
	return cs
}

// Codes that share an error with another one come back as that one.
var merged = map[status.Code]status.Code{
	status.FlowControl: status.Protocol,
	status.FrameSize:   status.Protocol,
	status.StreamState: status.Protocol,
	status.Refused:     status.ResourceExhausted, // by a handler, after it has seen the request
	status.IdleTimeout: status.DeadlineExceeded,
	status.Keepalive:   status.ConnectionLost,
	status.WriteStall:  status.ConnectionLost,
}

func TestEveryCodeHasAnErrorThatComesBack(t *testing.T) {
	if len(allCodes()) != len(codes) {
		t.Errorf("%d codes have a name, %d an error", len(allCodes()), len(codes))
	}
	for _, c := range allCodes() {
		row, ok := codes[c]
		if !ok {
			t.Errorf("%v has no error", c)
			continue
		}
		for _, e := range []int{row.errno, row.notProcessed} {
			if _, ok := rowOf(e); !ok {
				t.Errorf("%v becomes %d, which is not in the table", c, e)
			}
		}
		want := c
		if m, ok := merged[c]; ok {
			want = m
		}
		if got := CodeOf(Errno(c)); got != want {
			t.Errorf("%v becomes %d, which is %v, not %v", c, Errno(c), got, want)
		}
	}
}

// brpcRetries is RpcRetryPolicy::DoRetry of brpc's retry_policy.cpp, in its order.
var brpcRetries = []int{1009, 1014, 112, 2003, 110, 2004, 2, 32, 111, 104, 61, 1011, 1017}

// After a handler's error neither our clients nor brpc's make the request again.
func TestNoHandlersErrorSaysThatItNeverRan(t *testing.T) {
	for _, c := range allCodes() {
		if _, notProcessed := meaning(Errno(c)); notProcessed || slices.Contains(brpcRetries, Errno(c)) {
			t.Errorf("%v by a handler is %d, after which the request is made again", c, Errno(c))
		}
	}
	for _, c := range []status.Code{status.Unimplemented, status.GoingAway, status.Refused, status.ResourceExhausted} {
		e := errnoOf(c, true)
		if code, notProcessed := meaning(e); !notProcessed || code != c {
			t.Errorf("%v before a handler is %d, read as %v, never processed: %t", c, e, code, notProcessed)
		}
	}
}

func TestBrpcsErrorsHaveACode(t *testing.T) {
	known := map[status.Code]bool{}
	for _, c := range allCodes() {
		known[c] = true
	}
	last := -1
	for _, r := range errnos {
		if r.errno <= last {
			t.Errorf("%d comes after %d", r.errno, last)
		}
		last = r.errno
		if !known[r.code] || (r.code == status.OK) != (r.errno == 0) {
			t.Errorf("%s (%d) is %v", r.name, r.errno, r.code)
		}
	}
	notProcessed := 0
	for _, e := range []int{1001, 1002, 1011, 2003, 2004} {
		if _, u := meaning(e); u {
			notProcessed++
		}
	}
	if notProcessed != 5 {
		t.Errorf("%d of 5 errors say that the request was never processed", notProcessed)
	}
}

func TestApplicationsErrorsKeepTheirNumber(t *testing.T) {
	for _, n := range []int{256, 4242, 1000, 3003, math.MaxInt32} {
		if c := CodeOf(n); int(c) != n || Errno(c) != n {
			t.Errorf("error %d becomes %v, and that %d", n, c, Errno(c))
		}
	}
	for _, n := range []int{-1, 3, 133, 255} {
		if c := CodeOf(n); c != status.Unknown {
			t.Errorf("error %d is %v", n, c)
		}
	}
	for _, c := range []status.Code{17, 63, 79, 255, math.MaxInt32 + 1, math.MaxUint32} {
		if e := Errno(c); e != Errno(status.Unknown) {
			t.Errorf("%v becomes %d", c, e)
		}
	}
}

func TestAnErrorsTextLosesItsPrefixOnlyWhereItIsOurs(t *testing.T) {
	for _, c := range []struct {
		errno      int
		text, want string
	}{
		{2001, "[E2001]boom", "boom"},
		{2001, "[127.0.0.1:80][E2001]boom", "[127.0.0.1:80][E2001]boom"},
		{2001, "[E2002]boom", "[E2002]boom"},
		{2001, "", ""},
		{5, strings.Repeat("x", 5000), strings.Repeat("x", maxReason)},
	} {
		if got := reasonOf(c.errno, []byte(c.text)); got != c.want {
			t.Errorf("%.40q of error %d is %.40q, want %.40q", c.text, c.errno, got, c.want)
		}
	}
	if got := errorText(1002, "Fail to find method=a.B/C"); got != "[E1002]Fail to find method=a.B/C" {
		t.Errorf("the text is %q", got)
	}
}
