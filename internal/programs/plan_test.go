package programs

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A plan is what a program is made of.
type plan struct {
	server, client kernel.Limits
	clients        int
	conns          int
	connType       kernel.ConnType
	compression    pool.Compression
	goroutines     int // of each client
	acts           int // of each goroutine
	burst          int // streams at once, where there is a burst
	maxMessage     int
	messages       int // of a half, at most
	life           time.Duration
	end            ending // of connections, in the middle
	endAfter       time.Duration
	neighbour      bool // a stream that is read all the time goes on beside all that
}

// An ending is what a program ends before its streams have ended.
type ending int

const (
	endNothing ending = iota
	endConn           // a connection, by the client
	endServersConn
	endClient
	endServer
	endDrain
)

// String is the plan without what is zero.
func (p *plan) String() string {
	zero := regexp.MustCompile(`[A-Za-z]+:0s? ?`)
	return zero.ReplaceAllString(fmt.Sprintf("%+v", *p), "")
}

// one returns one of vs.
func one[T any](rnd *rand.Rand, vs ...T) T { return vs[rnd.IntN(len(vs))] }

// chance is true once in n times.
func chance(rnd *rand.Rand, n int) bool { return rnd.IntN(n) == 0 }

// newPlan makes a plan for a wire. With sockets time is real.
func newPlan(rnd *rand.Rand, caps *frame.Caps, sockets bool) *plan {
	p := &plan{
		clients: one(rnd, 1, 1, 1, 2, 3), conns: one(rnd, 0, 0, 1, 3), connType: one(rnd, kernel.ConnSingle, kernel.ConnSingle, kernel.ConnPooled, kernel.ConnShort),
		goroutines: one(rnd, 1, 2, 8, 24), acts: 1 + rnd.IntN(12), burst: one(rnd, 3, 20, 150),
		maxMessage: one(rnd, 300, 5000, 70_000, 1<<20), messages: one(rnd, 3, 30, 200),
		life: time.Duration(one(rnd, 1, 30, 300, 2000)) * time.Millisecond, neighbour: chance(rnd, 2),
	}
	if p.maxMessage > 70_000 { // many small programs find more than few large ones
		p.messages, p.goroutines, p.burst = min(p.messages, 10), min(p.goroutines, 2), min(p.burst, 5)
	}
	if p.goroutines > 2 {
		p.acts, p.burst = min(p.acts, 5), min(p.burst, 30)
	}
	if sockets {
		p.life = min(p.life, 150*time.Millisecond)
	}
	p.server, p.client = limits(rnd, p.maxMessage), limits(rnd, p.maxMessage)
	p.server.MaxStreams = one(rnd, 0, 0, 1, 2, 5, 40, 300)
	p.client.MaxStreams = one(rnd, 0, 0, 1, 3)
	if p.server.MaxStreams > 0 && p.server.MaxStreams < 5 {
		p.neighbour = false // it would take the streams of the others
	}
	for _, c := range []pool.Compression{pool.Gzip, pool.Zstd} {
		if caps.Compression.Has(c) && chance(rnd, 4) {
			p.compression = c
		}
	}
	if chance(rnd, 4) {
		p.end = ending(1 + rnd.IntN(int(endDrain)))
		p.endAfter = time.Duration(rnd.Int64N(int64(2*p.life))) + time.Microsecond
		p.neighbour = false
	}
	return p
}

// limits are those of one side, small ones among them.
func limits(rnd *rand.Rand, maxMessage int) kernel.Limits {
	var l kernel.Limits
	if chance(rnd, 2) {
		l.MaxMessage = maxMessage
	}
	if chance(rnd, 3) {
		l.StreamWindow = one(rnd, 64, 200, 4000, 100_000)
	}
	if chance(rnd, 3) {
		l.ConnWindow = one(rnd, 4<<10, 64<<10, 1<<20)
	}
	if chance(rnd, 4) {
		l.OutQueue = one(rnd, 1, 1000, 30_000)
	}
	if chance(rnd, 4) {
		l.InFlight = 128 << 10
	}
	if chance(rnd, 4) {
		l.KeepaliveInterval = one(rnd, 100*time.Millisecond, time.Second)
	}
	if chance(rnd, 4) {
		l.MaxOffers = one(rnd, 1, 5)
	}
	return l
}

// options are those of one side of a stream.
func options(rnd *rand.Rand) kernel.StreamOptions {
	o := kernel.StreamOptions{InBuffer: one(rnd, 0, 0, kernel.None, 1), MaxBatch: one(rnd, 0, 1, 5), CountLate: chance(rnd, 8)}
	if chance(rnd, 3) {
		o.Window = 64 << rnd.IntN(14)
	}
	if chance(rnd, 4) {
		o.SendLimit = one(rnd, 64, 1000, 50_000, kernel.Unlimited)
	}
	if chance(rnd, 6) {
		o.IdleTimeout = time.Duration(1+rnd.IntN(20)) * time.Millisecond
	}
	o.NoReceive = chance(rnd, 15)
	return o
}

// pause is a time that somebody waits between two acts: mostly none.
func (p *plan) pause(rnd *rand.Rand) time.Duration {
	if !chance(rnd, 4) {
		return 0
	}
	return time.Duration(rnd.Int64N(int64(p.life)/4 + 1))
}
