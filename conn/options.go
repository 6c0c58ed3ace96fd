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

// Limits are what programs have as kernel.Limits, whose comments say what each field is and
// what its default is.
type Limits struct {
	MaxConns        int
	MaxConnsPerAddr int
	MaxHandshakes   int
	Handshake       time.Duration
	Authenticate    time.Duration

	MaxStreams      int
	MaxTotalStreams int
	MaxMessage      int
	MaxMetadata     int
	MaxKeys         int
	MaxOffers       int

	StreamWindow   int
	ConnWindow     int
	MaxWindow      int
	SenderWindow   int
	AssemblyBudget int
	Memory         int
	OutQueue       int
	InFlight       int

	KeepaliveInterval time.Duration
	KeepaliveTimeout  time.Duration
	ReadStall         time.Duration
	WriteStall        time.Duration
	IdleConn          time.Duration
	MaxConnAge        time.Duration
	ConnAgeGrace      time.Duration
	Drain             time.Duration
}

func def[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// WithDefaults returns l with every zero field set, except for KeepaliveInterval and
// IdleConn: their defaults are the protocol's.
func WithDefaults(l Limits) Limits {
	def(&l.Memory, memoryDefault())
	def(&l.MaxConns, min(65_536, max(l.Memory/connShare/ConnSize, 1)))
	def(&l.MaxConnsPerAddr, 1024)
	def(&l.MaxHandshakes, 256)
	def(&l.Handshake, 5*time.Second)
	def(&l.Authenticate, 5*time.Second)
	def(&l.MaxStreams, 1000)
	def(&l.MaxTotalStreams, min(100_000, max(l.Memory/StreamShare/(StreamSize+HandlerSize), 1)))
	def(&l.MaxMessage, 4<<20)
	def(&l.MaxMetadata, 16<<10)
	def(&l.MaxKeys, 128)
	def(&l.MaxOffers, 1024)
	def(&l.StreamWindow, 1<<20)
	def(&l.ConnWindow, 16<<20)
	def(&l.MaxWindow, max(32<<20, l.StreamWindow))
	def(&l.SenderWindow, max(16<<20, 2*l.MaxMessage))
	def(&l.AssemblyBudget, max(64<<20, l.MaxMessage))
	def(&l.OutQueue, 1<<20)
	def(&l.InFlight, 256<<10)
	def(&l.KeepaliveTimeout, 20*time.Second)
	def(&l.ReadStall, 30*time.Second)
	def(&l.WriteStall, 30*time.Second)
	def(&l.MaxConnAge, Unlimited)
	def(&l.ConnAgeGrace, Unlimited)
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
		{"IdleConn", &l.IdleConn}, {"MaxConnAge", &l.MaxConnAge},
		{"ConnAgeGrace", &l.ConnAgeGrace}, {"Drain", &l.Drain},
	}
}

// MemoryShare is the default of Memory, in percent of GOMEMLIMIT.
const MemoryShare = 70

// What connections, and streams with handlers, may take of Memory by default: one part in so
// many.
const (
	connShare   = 4
	StreamShare = 2
)

func memoryDefault() int {
	limit := debug.SetMemoryLimit(-1) // which does not change it
	if limit == math.MaxInt64 {
		return Unlimited
	}
	return int(limit / 100 * MemoryShare)
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
		{"MaxTotalStreams", l.MaxTotalStreams, 1, Unlimited},
		{"MaxMessage", l.MaxMessage, 1, maxLimit},
		{"MaxMetadata", l.MaxMetadata, 1, 48 << 10},
		{"MaxKeys", l.MaxKeys, 1, Unlimited},
		{"MaxOffers", l.MaxOffers, 1, 1 << 24},
		{"StreamWindow", l.StreamWindow, 64, maxLimit},
		{"ConnWindow", l.ConnWindow, 4 << 10, maxLimit},
		{"MaxWindow", l.MaxWindow, l.StreamWindow, maxLimit},
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
