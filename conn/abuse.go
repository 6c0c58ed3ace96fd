package conn

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/sluicerpc/sluice/frame"
)

// What an honest peer has no use for is counted, and ends the connection beyond
// these bounds.
const (
	pingStrikes   = 2    // pings sooner than allowed
	resetBurst    = 1000 // streams reset at once, beyond one for every resetEach opened,
	resetRate     = 33   // and a second after that (nghttp2's bounds)
	resetEach     = 2
	creditSpare   = 1000 // grants of credit beyond one for every leastGrant bytes sent
	leastGrant    = 16
	refusedFactor = 10 // times the limit of streams, in refusedWindow
	refusedWindow = 10 * time.Second
	maxAnswers    = 1000 // control frames that wait for a peer that does not read
	uselessSpare  = 1000 // frames that change nothing, and
	uselessEach   = 8    // for each stream that there ever was
	readSpare     = 1000 // reports of bytes read beyond one for every leastRead bytes written
	leastRead     = 1 << 10
	maxGoAways    = 16
	settingsBurst = 100 // changes of settings at once,
	settingsRate  = 10  // and a second after that
)

// abuse counts. It is owned by the reader.
type abuse struct {
	lastPing       time.Time
	pingSent       uint64 // credit that we had used by then
	strikes        int
	goneBytes      uint64 // bytes of credit used on streams that had ended
	credits        uint64
	reads          uint64
	uselessFrames  uint64
	goAways        int
	resets         *rate.Limiter
	settings       *rate.Limiter
	resetAllowance uint64 // streams opened that no reset was counted against, up to a bound
	refusals       int
	since          time.Time
}

// ping counts one that comes too soon. One beside data, either way, is none of them:
// whoever sends or reads much may well measure the path (grpc-go's bandwidth estimator
// sends one beside each window update, and forgives whatever comes between two of its
// own writes). data is the messages that came with it, sent the credit that we have used
// so far.
func (a *abuse) ping(now time.Time, least time.Duration, data int, sent uint64) error {
	early := !a.lastPing.IsZero() && now.Sub(a.lastPing) < least
	busy := data > 0 || sent != a.pingSent
	a.lastPing, a.pingSent = now, sent
	if !early || busy {
		a.strikes = 0
		return nil
	}
	if a.strikes++; a.strikes > pingStrikes {
		return violation(frame.CodeCalm, "too many pings")
	}
	return nil
}

func (a *abuse) opened(n uint64) { a.resetAllowance = min(a.resetAllowance+n, resetEach*resetBurst) }

// reset counts a stream that was reset before its end. A client whose calls run out
// of time now and then does that for ever, and is no attack: most of its streams end
// in order.
func (a *abuse) reset(now time.Time) error {
	if a.resetAllowance >= resetEach {
		a.resetAllowance -= resetEach
		return nil
	}
	if a.resets == nil {
		a.resets = rate.NewLimiter(resetRate, resetBurst)
	}
	if !a.resets.AllowN(now, 1) {
		return violation(frame.CodeCalm, "too many streams are reset")
	}
	return nil
}

// credit counts a grant against what was sent so far: an honest peer grants at
// half a window, which is 32 bytes or more.
func (a *abuse) credit(sent uint64) error {
	if a.credits++; a.credits > sent/leastGrant+creditSpare {
		return violation(frame.CodeCalm, "too many grants of credit")
	}
	return nil
}

// read counts a report of bytes read: an honest peer sends one for 64 KiB.
func (a *abuse) read(wrote uint64) error {
	if a.reads++; a.reads > wrote/leastRead+readSpare {
		return violation(frame.CodeCalm, "too many reports of what was read")
	}
	return nil
}

// newSettings counts a change of settings, each of which may reach every stream.
func (a *abuse) newSettings(now time.Time) error {
	if a.settings == nil {
		a.settings = rate.NewLimiter(settingsRate, settingsBurst)
	}
	if !a.settings.AllowN(now, 1) {
		return violation(frame.CodeCalm, "the settings change too often")
	}
	return nil
}

func (a *abuse) useless(streams uint64) error {
	if a.uselessFrames++; a.uselessFrames > uselessEach*streams+uselessSpare {
		return violation(frame.CodeCalm, "too many frames that change nothing")
	}
	return nil
}

// goodbye counts a GoAway: two are the rule, a third gives the reason of the end.
func (a *abuse) goAway() error {
	if a.goAways++; a.goAways > maxGoAways {
		return violation(frame.CodeCalm, "too many goodbyes")
	}
	return nil
}

func (a *abuse) refused(now time.Time, limit int) error {
	if now.Sub(a.since) > refusedWindow {
		a.since, a.refusals = now, 0
	}
	if a.refusals++; a.refusals > refusedFactor*limit {
		return violation(frame.CodeCalm, "too many streams are refused")
	}
	return nil
}
