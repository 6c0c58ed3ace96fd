package actor

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// An assembly is a message that is arriving in fragments, and the last one that did, if
// that waits in the mailbox.
//
// The fragments of one message at a time return their credit as they arrive, against the
// connection's budget of memory. Otherwise a message longer than the window could never
// be complete (models/). That message is called paid.
type assembly struct {
	active  bool         // a message is arriving:
	m       pool.Message // its memory, which grows as the bytes arrive
	total   int          // its length, or frame.UnknownTotal
	got     int          // bytes of it that are here
	whole   int          // their cost
	packed  bool         // it is compressed
	cost    int          // of that, what has not been returned
	paying  bool         // its fragments return their credit as they arrive
	reserve int          // memory reserved of the budget, bytes; also that of paid
	paid    pool.Message // complete, in the mailbox
	owed    int          // the cost of paid
}

// reserveAtOnce is how much memory a message gets at once, if it announces that length.
const reserveAtOnce = 1 << 20

// reserveUnpaced is reserveAtOnce where the receiver can't tell its peer how much it has
// room for: many streams may be open before it reads no more.
const reserveUnpaced = 64 << 10

// growFactor is by how much the memory of a message grows once its bytes have arrived.
// Growing copies them on the event loop, so it should happen once: a message of 16 MiB is
// copied when 1 MiB is here.
const growFactor = 16

// unknownGrowth is growFactor where the length is not known: less, because the message
// keeps what turns out to be too much. 128 KiB become 1 MiB.
const unknownGrowth = 8

// size is how much memory the message should have to hold need bytes.
func (a *assembly) size(need int, cfg *Config) int {
	have := a.m.Len()
	if a.total == frame.UnknownTotal {
		return min(cfg.MaxReceive, max(unknownGrowth*have, 2*need))
	}
	atOnce := reserveAtOnce
	if cfg.Caps.Pacing == frame.Unpaced {
		atOnce = reserveUnpaced
	}
	return min(a.total, max(growFactor*have, need, atOnce))
}

// accepts reports whether n more bytes, the last ones with last, agree with the length
// that was announced, if one was.
func (a *assembly) accepts(n int, last bool) bool {
	got := a.got + n
	return a.total == frame.UnknownTotal || got <= a.total && (!last || got == a.total)
}
