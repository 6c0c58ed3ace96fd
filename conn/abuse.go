package conn

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/sluicerpc/sluice/status"
)

// What costs us and is of no use to an honest peer is counted. Beyond these bounds it
// ends the connection.
const (
	pingStrikes   = 2    // pings that come too soon, in a row
	resetBurst    = 1000 // streams reset at once, beyond one for each resetEach opened,
	resetRate     = 33   // and then as many a second (nghttp2's bounds)
	resetEach     = 2
	creditSpare   = 1000 // Credit frames beyond one for each leastGrant bytes sent
	leastGrant    = 16
	refusedFactor = 10 // refused streams in refusedWindow, for each stream of the limit
	refusedWindow = 10 * time.Second
	maxAnswers    = 1000 // control frames that wait to be written to a peer
	uselessSpare  = 1000 // frames that change nothing, beyond
	uselessEach   = 8    // for each stream that was opened
	readSpare     = 1000 // Read frames beyond one for each leastRead bytes written
	leastRead     = 1 << 10
	maxGoAways    = 16
	settingsBurst = 100 // changes of settings at once,
	settingsRate  = 10  // and then as many a second
)

// abuse counts. It is owned by the reader.
type abuse struct {
	lastPing       time.Time
	pingSent       uint64 // credit that we had used at the last ping
	strikes        int
	goneBytes      uint64 // bytes of credit used on streams that are gone
	credits        uint64
	reads          uint64
	uselessFrames  uint64
	goAways        int
	resets         *rate.Limiter
	settings       *rate.Limiter
	resetAllowance uint64 // streams opened that no reset is charged to, up to a bound
	refusals       int
	since          time.Time
}

// ping counts a ping that comes too soon. A ping beside data in either direction is not
// counted: a peer may measure the path while it sends or reads much, as grpc-go's
// bandwidth estimator does beside each window update. data is the number of messages
// that came with the ping, sent the credit that we have used so far.
func (a *abuse) ping(now time.Time, least time.Duration, data int, sent uint64) error {
	early := !a.lastPing.IsZero() && now.Sub(a.lastPing) < least
	busy := data > 0 || sent != a.pingSent
	a.lastPing, a.pingSent = now, sent
	if !early || busy {
		a.strikes = 0
		return nil
	}
	if a.strikes++; a.strikes > pingStrikes {
		return violation(status.EnhanceYourCalm, "too many pings")
	}
	return nil
}

func (a *abuse) opened(n uint64) { a.resetAllowance = min(a.resetAllowance+n, resetEach*resetBurst) }

// reset counts a stream that was reset before its end. A client whose calls time out now
// and then may go on for ever, because most of its streams end in order.
func (a *abuse) reset(now time.Time) error {
	if a.resetAllowance >= resetEach {
		a.resetAllowance -= resetEach
		return nil
	}
	if a.resets == nil {
		a.resets = rate.NewLimiter(resetRate, resetBurst)
	}
	if !a.resets.AllowN(now, 1) {
		return violation(status.EnhanceYourCalm, "too many streams reset")
	}
	return nil
}

// credit counts a Credit frame against what was sent so far: an honest peer sends one at
// half a window, which is 32 bytes or more.
func (a *abuse) credit(sent uint64) error {
	if a.credits++; a.credits > sent/leastGrant+creditSpare {
		return violation(status.EnhanceYourCalm, "too many Credit frames")
	}
	return nil
}

// read counts a Read frame: an honest peer sends one for each 64 KiB.
func (a *abuse) read(wrote uint64) error {
	if a.reads++; a.reads > wrote/leastRead+readSpare {
		return violation(status.EnhanceYourCalm, "too many Read frames")
	}
	return nil
}

// newSettings counts a change of settings, each of which may reach every stream.
func (a *abuse) newSettings(now time.Time) error {
	if a.settings == nil {
		a.settings = rate.NewLimiter(settingsRate, settingsBurst)
	}
	if !a.settings.AllowN(now, 1) {
		return violation(status.EnhanceYourCalm, "settings change too often")
	}
	return nil
}

func (a *abuse) useless(streams uint64) error {
	if a.uselessFrames++; a.uselessFrames > uselessEach*streams+uselessSpare {
		return violation(status.EnhanceYourCalm, "too many frames that change nothing")
	}
	return nil
}

// goAway counts a GOAWAY: two are the rule, and a third has the reason of the end.
func (a *abuse) goAway() error {
	if a.goAways++; a.goAways > maxGoAways {
		return violation(status.EnhanceYourCalm, "too many GOAWAYs")
	}
	return nil
}

func (a *abuse) refused(now time.Time, limit int) error {
	if now.Sub(a.since) > refusedWindow {
		a.since, a.refusals = now, 0
	}
	if a.refusals++; a.refusals > refusedFactor*limit {
		return violation(status.EnhanceYourCalm, "too many streams refused")
	}
	return nil
}
