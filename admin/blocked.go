package admin

import (
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// acceptance is what a stream waits for that is not accepted, beside what kernel says.
const acceptance kernel.BlockedOn = "acceptance"

// stuckTime is from when on a wait is more than the moment that any load has.
const stuckTime = time.Second

// nothing is what a page says that is about all that waits. It stands where another sentence would, so that
// the page stays where it is.
var nothing = line{Text: "Nothing has been blocked for 1 s or longer.", Class: "good"}

// blockedOn returns what the stream waits for, and for how long.
func (r *streamRow) blockedOn() (kernel.BlockedOn, time.Duration) {
	if i := &r.info; i.BlockedOn == kernel.BlockedOnNothing && i.State == "opening" {
		return acceptance, i.Age
	}
	return r.info.BlockedOn, r.info.BlockedFor
}

// by returns who must do something so that the stream goes on.
func (r *streamRow) by() string {
	on, _ := r.blockedOn()
	i := &r.info
	switch on {
	case kernel.BlockedOnStreamCredit:
		return "the program at " + r.conn.peer() + ", to read " + clean(i.Method)
	case kernel.BlockedOnReader:
		return "this program, to read " + clean(i.Method)
	case kernel.BlockedOnQueue:
		return "connection " + count(r.conn.info.ID) + ", to write what is queued" + r.conn.why()
	case kernel.BlockedOnConnCredit, kernel.BlockedOnSocket:
		return waitsFor(on, r.conn)
	case acceptance:
		if i.Opener {
			return "the program at " + r.conn.peer() + ", to accept " + clean(i.Method)
		}
		return "this program, to accept " + clean(i.Method)
	}
	return ""
}

// by is the same for a connection.
func (r *connRow) by() string {
	if r.info.BlockedOn == kernel.BlockedOnReader {
		return "this program, to read what has come on connection " + count(r.info.ID)
	}
	return waitsFor(r.info.BlockedOn, r)
}

func waitsFor(on kernel.BlockedOn, r *connRow) string {
	switch on {
	case kernel.BlockedOnConnCredit:
		return "the program at " + r.peer() + ", to read other streams of connection " + count(r.info.ID)
	case kernel.BlockedOnQueue:
		return "connection " + count(r.info.ID) + ", to write what is queued"
	case kernel.BlockedOnSocket:
		return "the machine at " + r.peer() + ", or the network, to take what is written"
	}
	return ""
}

// why is what the connection itself waits for.
func (r *connRow) why() string {
	if r.info.BlockedOn == kernel.BlockedOnNothing {
		return ""
	}
	return ", which waits for " + string(r.info.BlockedOn)
}

func (r *connRow) peer() string {
	if r.info.Peer == "" {
		return "the other side"
	}
	return clean(r.info.Peer)
}

// waitClass is how loud a wait is shown.
func waitClass(on kernel.BlockedOn, d time.Duration) string {
	switch {
	case on == kernel.BlockedOnNothing || on == acceptance || d < stuckTime:
		return ""
	case d < 10*time.Second:
		return "warn"
	}
	return "bad"
}

// waiting says what one stream or connection waits for, who must do something.
// A wait of less than stuckTime comes and goes: a sentence for it would, too.
func waiting(on kernel.BlockedOn, d time.Duration, by string, now time.Time) []line {
	if on == kernel.BlockedOnNothing || d < stuckTime {
		return []line{{Text: "It has not been blocked for 1 s or longer.", Class: "good"}}
	}
	return []line{{
		Text:  "It is blocked on " + string(on) + " for " + duration(d) + ", since " + clock(now.Add(-d), now) + ", and waits for " + by + ".",
		Class: waitClass(on, d),
	}}
}

// waitCells are the cells that say what something waits for, and for how long.
func waitCells(on kernel.BlockedOn, d time.Duration) [2]cell {
	if on == kernel.BlockedOnNothing {
		return [2]cell{dim(unknown, true), dim(unknown, true)}
	}
	class := waitClass(on, d)
	return [2]cell{{Text: string(on), Class: class}, {Text: duration(d), Class: class}}
}

// looksAt is what to look at next, by what is waited for.
var looksAt = map[kernel.BlockedOn]string{
	kernel.BlockedOnStreamCredit: "Look at the stream with the same number on the peer: it is blocked on its reader there.",
	kernel.BlockedOnConnCredit:   "Streams that nobody reads hold the connection's window. Look at the peer's streams of this connection with the most in their mailbox.",
	kernel.BlockedOnQueue:        "As much of this connection is accepted as Limits.OutQueue allows. Look at what the connection waits for.",
	kernel.BlockedOnSocket:       "The peer's kernel does not read the connection, or the network is slow. Look at its bytes in flight, its round trip, and the peer's CPU.",
	kernel.BlockedOnReader:       "Look at the handler: what is it doing? A profile of goroutines shows it.",
	acceptance:                   "It is opened, and no program has accepted it. Over gRPC that is so until the first message of the answer.",
}
