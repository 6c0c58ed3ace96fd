package conn

import (
	"sync/atomic"

	"github.com/sluicerpc/sluice/internal/timers"
)

// A Port is a stream's place in its connection: its number, its place in the lists of
// the output, and what it uses. The stream embeds it.
type Port struct {
	c  *Conn
	s  Stream
	id atomic.Uint64 // 0: has none yet

	sibling       *Port  // the next stream that the same request opens
	age           age    // of the stream
	latency       span32 // until it was accepted
	initialCredit uint32 // credit that our stream began with; see startCredit
	marks         atomic.Uint32
	local         bool // we opened the stream
	follower      bool // another stream's request opens this one

	// Owned by Conn.mu.
	retired   bool
	dataDue   bool  // the stream has data, and waits for its number
	openBytes int32 // see Charge
	evicted   bool  // what it still holds goes by itself

	// Owned by output.mu.
	inRoom                          bool
	inData                          bool
	removed                         bool // the stream is over: no list takes it any more
	nextControl, nextData, nextRoom *Port
	dueAt                           timers.Stamp // when it got into data while nothing could be written

	takenAtTimer uint32       // low half of the bytes taken when the timer last found progress
	takenSince   timers.Stamp // when that was; 0: never

	// What its window has beyond the initial credit, in bytes, or may have: see FirstWindow. While
	// it has that as a fresh stream, it is below zero. Written with Conn.mu held, or before anybody
	// has the stream; here where it fills a word.
	extra atomic.Int32
}

// Port.marks.
const (
	peerEnded    = 1 << iota // the peer sent EOS or Reset
	takesBundles             // the stream takes small messages in bundles
	peerCall                 // it is one of Conn.peerCalls
)

func (p *Port) has(mark uint32) bool { return p.marks.Load()&mark != 0 }

// Conn is the connection.
func (p *Port) Conn() *Conn { return p.c }

// charge adds n bytes to what the stream and its connection hold beside messages.
// After an eviction there may be less left to return than n says. Conn.mu is held.
func (p *Port) charge(n int) {
	n = max(n, -int(p.openBytes))
	p.openBytes += int32(n)
	p.c.openBytes += n
}
