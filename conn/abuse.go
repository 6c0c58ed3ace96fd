package conn

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/sluicerpc/sluice/status"
)

// What no honest peer does is counted, and beyond these bounds it ends the connection.
// Streams that are reset or refused, for whatever reason, are not counted: programs
// cancel, hedge, probe and burst, and such a stream costs less than one that is served.
// Handlers of reset streams count as running until they return.
const (
	pingBurst      = 1000                   // pings at once on a connection that is otherwise silent,
	pingRate       = 10                     // and then as many a second
	leastKeepalive = time.Second / pingRate // our own keepalive never exceeds the rate
	creditSpare    = 1000                   // Credit frames beyond those that grantsEach allows,
	grantsEach     = 2                      // which is so many for each message that may have been sent
	uselessSpare   = 1000                   // frames that change nothing, beyond
	uselessEach    = 8                      // for each stream that was opened
	readSpare      = 1000                   // Read frames beyond one for each leastRead bytes written
	leastRead      = 1 << 10
	maxGoAways     = 16
	settingsBurst  = 100 // changes of settings at once,
	settingsRate   = 10  // and then as many a second
)

// abuse counts. It is owned by the reader.
type abuse struct {
	pings         *rate.Limiter
	pingSent      uint64 // credit that we had used at the last ping
	goneBytes     uint64 // bytes of credit used on streams that are gone
	credits       uint64
	reads         uint64
	uselessFrames uint64
	goAways       int
	settings      *rate.Limiter
}

// ping counts a ping of a peer that is otherwise silent. A ping beside data in either
// direction is not counted: a peer may measure the path while it sends or reads much, as
// grpc-go's bandwidth estimator does beside each window update. data is the number of
// messages that came with the ping, sent the credit that we have used so far.
func (a *abuse) ping(now time.Time, data int, sent uint64) error {
	busy := data > 0 || sent != a.pingSent
	a.pingSent = sent
	if busy {
		return nil
	}
	if a.pings == nil {
		a.pings = rate.NewLimiter(pingRate, pingBurst)
	}
	if !a.pings.AllowN(now, 1) {
		return violation(status.EnhanceYourCalm, "too many pings")
	}
	return nil
}

// credit counts a Credit frame against what was sent so far, in bytes of credit. Peers of our own
// send one when frame.LeastGrant is owed. Some of HTTP/2's (Elixir's Mint) send two for each DATA
// frame, for the stream and for the connection, however short it is: that is as many as each
// message of no bytes would allow, which costs overhead.
func (a *abuse) credit(sent uint64, overhead int) error {
	if a.credits++; a.credits > grantsEach*sent/uint64(max(overhead, 1))+creditSpare {
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
