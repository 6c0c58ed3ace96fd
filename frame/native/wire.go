package native

import (
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Magic is what each side sends first. The CR LF in it reveals a path that changes line
// endings.
const Magic = "SLUICE\r\n"

// Version is the version of the wire that this package speaks.
const Version = 1

// overhead is what a message costs of the credit beside its length, so that a peer can't
// make us hold empty messages without bound.
const overhead = 32

const (
	headerLen   = 8
	totalLen    = 4  // the whole length, in front of a first fragment's bytes
	recordLen   = 8  // a record's header
	maxHeader   = 12 // headerLen + totalLen
	maxControl  = 64 << 10
	maxRecord   = 32 << 10 // of several frames
	sealRecord  = 16 << 10 // a writer ends a record when it holds this much
	wholeMax    = 4 << 10  // Data payloads up to here are handed on in one piece
	maxStreamID = 1<<31 - 1

	_ = uint(pool.BundleRoom - recordLen) // a record's header goes there

	// DefaultMaxFragment is the largest Data payload that we take and send.
	DefaultMaxFragment = 64 << 10

	// MaxInline is the longest request or reply that an Open or Accept carries.
	MaxInline = 16 << 10
)

// Types on the wire. Types from firstIgnorable on that a reader does not know
// are skipped; an unknown one below it ends the connection.
const (
	tOpen          = 1
	tAccept        = 2
	tReject        = 3
	tData          = 4
	tEOS           = 5
	tEnded         = 6
	tReset         = 7
	tStop          = 8
	tCredit        = 9
	tRead          = 10
	tPing          = 11
	tGoAway        = 12
	tHello         = 13
	firstIgnorable = 16

	typeMask = 0x1f
)

// Flags, in the upper bits of the type byte.
const (
	fMore         = 0x20 // Data: more fragments of this message follow
	fCont         = 0x40 // Data: not the first fragment
	fPacked       = 0x80 // Data, in the first frame of a message: it is compressed
	fPong         = 0x20 // Ping: an answer
	fNotProcessed = 0x20 // Reject: not processed
	fFollows      = 0x20 // Open, Accept: the first message is the request or reply
)

// kinds maps wire types to frame kinds; 0 is unknown.
var kinds = [typeMask + 1]frame.Kind{
	tOpen: frame.Open, tAccept: frame.Accept, tReject: frame.Reject, tData: frame.Data,
	tEOS: frame.EOS, tEnded: frame.Ended, tReset: frame.Reset, tStop: frame.Stop,
	tCredit: frame.Credit, tRead: frame.Read, tPing: frame.Ping, tGoAway: frame.GoAway,
	tHello: frame.Hello,
}

// types is the inverse of kinds.
var types = map[frame.Kind]byte{
	frame.Open: tOpen, frame.Accept: tAccept, frame.Reject: tReject, frame.EOS: tEOS,
	frame.Ended: tEnded, frame.Reset: tReset, frame.Stop: tStop, frame.Credit: tCredit,
	frame.Read: tRead, frame.Ping: tPing, frame.Pong: tPing, frame.GoAway: tGoAway,
	frame.Hello: tHello,
}
