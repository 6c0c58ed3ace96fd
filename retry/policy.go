package retry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A Policy says how the calls of a method are tried again. The zero value tries what is Safe and
// Useful, three times in all.
type Policy struct {
	// Attempts is how many there are at most, the first included, up to 100. Zero is 3; 1 is no
	// retry.
	Attempts int
	// Codes are those after which a call is tried again though a handler may have seen it: give
	// some to methods alone that do no harm when they run twice. What is Safe and Useful needs
	// none.
	Codes []status.Code
	// Backoff is the pause before the next attempt. The zero value is 50 ms, growing by 2 to
	// 5 s, with 50 % of jitter; a zero field has its value. Factor is 1 or more, Jitter less
	// than 1.
	Backoff kernel.Backoff
	// Timeout bounds each attempt. Zero is no limit but the call's. An attempt that it has ended
	// fails with DEADLINE_EXCEEDED, which is tried again if it is among Codes.
	Timeout time.Duration
	// Hedge, if it is not zero, is when another attempt begins though the one before has not
	// failed. That which is answered first counts, and the others are cancelled. One that fails
	// with what is tried again has the next one begin at once. Hedge methods alone that do no
	// harm when they run twice at the same time.
	Hedge time.Duration
}

// A Budget bounds what retries and hedges add to the load, however much fails.
type Budget struct {
	// Ratio is how many there can be for each call, in the long run. Zero is 0.2: a fifth.
	Ratio float64
	// Burst is how many there can be at once, from the start. Zero is 10; kernel.Unlimited is
	// no budget.
	Burst int
}

// Options configure a Caller. A nil pointer and the zero value are the defaults.
type Options struct {
	// Methods are the policies by pattern, as handlers have them: "pkg.Service/Method",
	// "pkg.Service/" for all of a service, "" for the rest. What no pattern is for is called
	// once. A nil map is a zero Policy for all.
	Methods map[string]Policy
	// Budget is for all calls of the Caller together.
	Budget Budget
}

const mostAttempts = 100

// withDefaults completes a policy, and returns what is wrong with it.
func (p Policy) withDefaults() (*Policy, error) {
	p.Attempts = cmp.Or(p.Attempts, 3)
	p.Codes = slices.Clone(p.Codes)
	b := &p.Backoff
	b.First, b.Most = cmp.Or(b.First, 50*time.Millisecond), cmp.Or(b.Most, 5*time.Second)
	b.Factor, b.Jitter = cmp.Or(b.Factor, 2), cmp.Or(b.Jitter, 0.5)
	if b.Jitter == kernel.None {
		b.Jitter = 0
	}
	b.First, b.Most = max(b.First, 0), max(b.Most, 0) // None is none
	switch {
	case p.Attempts < 1 || p.Attempts > mostAttempts:
		return nil, fmt.Errorf("%w: Attempts is %d", kernel.ErrLimits, p.Attempts)
	case p.Timeout < 0 || p.Hedge < 0:
		return nil, fmt.Errorf("%w: Timeout is %v, Hedge %v", kernel.ErrLimits, p.Timeout, p.Hedge)
	case !(b.Factor >= 1 && b.Factor <= math.MaxFloat64 && b.Jitter >= 0 && b.Jitter < 1): // NaN fails every comparison
		return nil, fmt.Errorf("%w: Backoff is %+v", kernel.ErrLimits, *b)
	case slices.Contains(p.Codes, status.OK):
		return nil, fmt.Errorf("%w: Codes has OK", kernel.ErrLimits)
	}
	return &p, nil
}

// Safe reports whether no handler has seen what failed with err, so that another attempt does no
// harm: a server has refused it unprocessed, or no connection could be made.
func Safe(err error) bool {
	if se := new(status.StreamError); errors.As(err, &se) {
		return se.NotProcessed
	}
	ce := new(status.ConnError)
	return errors.As(err, &ce) && (ce.Op == "dial" || ce.Op == "handshake")
}

// Useful reports whether another attempt may succeed: the server could not serve, or the
// connection was lost.
func Useful(err error) bool {
	switch code, _ := status.Of(err); code {
	case status.Unavailable, status.Refused, status.GoingAway, status.ConnectionLost:
		return true
	}
	return false
}

// again reports whether the policy has what failed with err tried again.
func (p *Policy) again(err error) bool {
	code, _ := status.Of(err)
	return Safe(err) && Useful(err) || slices.Contains(p.Codes, code)
}

// KeyPushback is the key by which a server says, in the trailer of a call that has failed, when
// to try again: after so many milliseconds, in place of the pause, or not at all if it is no
// number from 0 on. It is gRPC's. A handler sets it by Stream.SetTrailer, or in the Details of
// its status.HandlerError.
const KeyPushback = "grpc-retry-pushback-ms"

// pause is the time before the next attempt when n have failed, the last with err. It reports
// false if the server wants none.
func (p *Policy) pause(n int, err error) (time.Duration, bool) {
	if said, d, ok := pushback(err); said {
		return d, ok
	}
	b := &p.Backoff
	d := min(float64(b.First)*math.Pow(b.Factor, float64(n-1)), float64(b.Most))
	return time.Duration(d * (1 + b.Jitter*(2*rand.Float64()-1))), true
}

// pushback is what the server says of when to try again.
func pushback(err error) (said bool, d time.Duration, ok bool) {
	se := new(status.StreamError)
	if !errors.As(err, &se) {
		return false, 0, false
	}
	text, has := se.Details.Lookup(KeyPushback)
	if !has {
		return false, 0, false
	}
	ms, bad := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	if bad != nil || ms < 0 {
		return true, 0, false
	}
	return true, time.Duration(ms) * time.Millisecond, true
}
