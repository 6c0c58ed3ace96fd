package conn

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"time"
)

// Unlimited as a limit means that there is none.
const Unlimited = math.MaxInt

// reportEvery is how many bytes are read before the peer is told: a part of what it may
// have in flight at first.
const reportEvery = 64 << 10

// Limits are kernel.Limits, which says what the defaults are; programs have those.
type Limits struct {
	MaxConns        int           // connections of a server; default 65,536, at most 35 % of RLIMIT_NOFILE; a number of your own: at most 45 %
	MaxConnsPerAddr int           // connections of a server from one address, or one IPv6 network of 64 bits; default 1,024
	MaxHandshakes   int           // handshakes at once, beyond which connections wait, and then take the place of one that is silent; default 256
	Handshake       time.Duration // time for TLS and Hello; default 5 s
	Authenticate    time.Duration // time for Authenticate and for Authorize; default 5 s

	MaxStreams  int // streams that a peer may have open on a connection; default 1,000
	MaxMessage  int // bytes of a message that we receive; default 4 MiB, at most 1 GiB
	MaxMetadata int // bytes of metadata, as metadata.MD.Size counts; default 16 KiB
	MaxKeys     int // fields of metadata; default 128
	MaxOffers   int // offers of a server that wait to be accepted; default 1,024

	StreamWindow   int // bytes unread that the window of a stream may grow to; default 1 MiB
	ConnWindow     int // bytes unread on a connection; default 16 MiB
	SenderWindow   int // bytes unread on a stream whose sender chooses its window itself; on its connection, four times that; beyond either a stream is reset, preferably one that nobody reads; default 16 MiB, or twice MaxMessage if that is more
	AssemblyBudget int // bytes of messages in fragments on a connection, beyond the windows, and as many of requests and metadata; default 64 MiB, or MaxMessage if that is more
	Memory         int // bytes that the connections of a server hold: unread, unwritten, and of requests and metadata; default 70 % of GOMEMLIMIT if that is set, else Unlimited
	OutQueue       int // bytes accepted and not written on a connection; default 1 MiB
	InFlight       int // bytes written and not read by the peer, at first: it grows as the path needs; default 256 KiB, at least 128 KiB; four times that for a stream that alone sends

	KeepaliveInterval time.Duration // a silent peer is pinged after this; default 30 s, or what its protocol says; at least 100 ms
	KeepaliveTimeout  time.Duration // time to answer; default 20 s
	ReadStall         time.Duration // time for a frame to become complete; default 30 s
	WriteStall        time.Duration // time for a peer to read, 64 KiB at least; default 30 s
	IdleConn          time.Duration // a connection without streams is closed; default 10 min, or what its protocol says, servers only
	Drain             time.Duration // time for a drain whose context has no deadline; default 30 s
}

func def[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// WithDefaults returns l with every zero field set, except for KeepaliveInterval and
// IdleConn: their defaults are the protocol's.
func WithDefaults(l Limits) Limits {
	def(&l.MaxConns, 65_536)
	def(&l.MaxConnsPerAddr, 1024)
	def(&l.MaxHandshakes, 256)
	def(&l.Handshake, 5*time.Second)
	def(&l.Authenticate, 5*time.Second)
	def(&l.MaxStreams, 1000)
	def(&l.MaxMessage, 4<<20)
	def(&l.MaxMetadata, 16<<10)
	def(&l.MaxKeys, 128)
	def(&l.MaxOffers, 1024)
	def(&l.StreamWindow, 1<<20)
	def(&l.ConnWindow, 16<<20)
	def(&l.SenderWindow, max(16<<20, 2*l.MaxMessage))
	def(&l.AssemblyBudget, max(64<<20, l.MaxMessage))
	def(&l.Memory, memoryDefault())
	def(&l.OutQueue, 1<<20)
	def(&l.InFlight, 256<<10)
	def(&l.KeepaliveTimeout, 20*time.Second)
	def(&l.ReadStall, 30*time.Second)
	def(&l.WriteStall, 30*time.Second)
	def(&l.Drain, 30*time.Second)
	for _, d := range l.durations() {
		*d.v = min(*d.v, forever)
	}
	return l
}

// forever is Unlimited as a duration: times can be added to it.
const forever = time.Duration(1 << 60)

// A span is one of the limits that are durations.
type span struct {
	name string
	v    *time.Duration
}

func (l *Limits) durations() []span {
	return []span{
		{"Handshake", &l.Handshake}, {"Authenticate", &l.Authenticate},
		{"KeepaliveInterval", &l.KeepaliveInterval}, {"KeepaliveTimeout", &l.KeepaliveTimeout},
		{"ReadStall", &l.ReadStall}, {"WriteStall", &l.WriteStall},
		{"IdleConn", &l.IdleConn}, {"Drain", &l.Drain},
	}
}

// memoryShare is the default of Memory, in percent of GOMEMLIMIT.
const memoryShare = 70

func memoryDefault() int {
	limit := debug.SetMemoryLimit(-1) // which does not change it
	if limit == math.MaxInt64 {
		return Unlimited
	}
	return int(limit / 100 * memoryShare)
}

// maxLimit is the largest window and message.
const maxLimit = 1 << 30

// ErrLimits is the error of Validate, with details.
var ErrLimits = errors.New("sluice: limit out of range")

// Validate checks limits that WithDefaults has completed.
func Validate(l Limits) error {
	for _, c := range []struct {
		name     string
		v        int
		min, max int
	}{
		{"MaxConns", l.MaxConns, 1, Unlimited},
		{"MaxConnsPerAddr", l.MaxConnsPerAddr, 1, Unlimited},
		{"MaxHandshakes", l.MaxHandshakes, 1, Unlimited},
		{"MaxStreams", l.MaxStreams, 1, 1 << 24},
		{"MaxMessage", l.MaxMessage, 1, maxLimit},
		{"MaxMetadata", l.MaxMetadata, 1, 48 << 10},
		{"MaxKeys", l.MaxKeys, 1, Unlimited},
		{"MaxOffers", l.MaxOffers, 1, 1 << 24},
		{"StreamWindow", l.StreamWindow, 64, maxLimit},
		{"ConnWindow", l.ConnWindow, 4 << 10, maxLimit},
		{"SenderWindow", l.SenderWindow, l.MaxMessage, math.MaxInt32},
		{"AssemblyBudget", l.AssemblyBudget, l.MaxMessage, Unlimited},
		{"Memory", l.Memory, 1 << 20, Unlimited},
		{"OutQueue", l.OutQueue, 1, Unlimited},
		{"InFlight", l.InFlight, 2 * reportEvery, Unlimited},
	} {
		if c.v < c.min || c.v > c.max {
			return fmt.Errorf("%w: %s is %d, must be %d to %d", ErrLimits, c.name, c.v, c.min, c.max)
		}
	}
	for _, d := range l.durations() {
		if *d.v < 0 {
			return fmt.Errorf("%w: %s is %v, must be 0 or more", ErrLimits, d.name, *d.v)
		}
	}
	return nil
}

// InitialCredit is how many bytes a peer may send on a stream before it is accepted: the
// share of each allowed stream in half of the connection's window. The other half is
// left to streams that are read.
func InitialCredit(l *Limits) int {
	return min(max(l.ConnWindow/2/l.MaxStreams, 128), 64<<10, l.StreamWindow)
}
