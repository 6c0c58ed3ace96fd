// Package tally adds up what the connections and streams of a server or client do, for the modules
// in contrib that export it as metrics. It is told when they begin and end, and looks at those that
// are open when it is asked: no message is counted twice for it, or costs anything.
package tally

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A Tally counts the connections of one server or client. ConnBegun and ConnEnded are those of
// its kernel.Observer. The zero value is empty. All methods may be called at the same time.
type Tally struct {
	mu   sync.Mutex
	open map[*kernel.Conn]struct{}
	past map[string]*wire // by protocol: what is left of connections that have ended
}

// A wire is what is counted of one protocol since the start.
type wire struct {
	begun uint64
	ended map[status.Code]uint64
	sums  Sums
}

// Sums are counted since the start, and never become smaller.
type Sums struct {
	MessagesSent, BytesSent         uint64
	MessagesReceived, BytesReceived uint64
}

func (s *Sums) add(i *kernel.ConnInfo) {
	s.MessagesSent += i.MessagesSent
	s.BytesSent += i.BytesSent
	s.MessagesReceived += i.MessagesReceived
	s.BytesReceived += i.BytesReceived
}

// Wire is all connections of one protocol.
type Wire struct {
	Protocol string
	Begun    uint64                 // connections, since the start
	Ended    map[status.Code]uint64 // the same, by why they have ended
	Sums     Sums

	Conns    int // open now
	Streams  int // open now
	Handlers int // that run, or wait to
	Queued   int // bytes accepted and not written
	Unread   int // bytes arrived and not taken
	InFlight int // bytes written and not read by the peer
}

// Blocked is what waits for one thing.
type Blocked struct {
	Conns, Streams             int           // that have waited for a while, see Tally.Read
	LongestConn, LongestStream time.Duration // of all that wait
}

// A Reading is what a Tally finds at one moment.
type Reading struct {
	Wires   []Wire // in the order of their names
	Blocked map[kernel.BlockedOn]*Blocked
}

// reasons are all things that a connection or stream can wait for.
var reasons = [...]kernel.BlockedOn{
	kernel.BlockedOnConnCredit, kernel.BlockedOnQueue, kernel.BlockedOnReader, kernel.BlockedOnSocket, kernel.BlockedOnStreamCredit,
}

// ConnBegun implements kernel.Observer.
func (t *Tally) ConnBegun(c *kernel.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*kernel.Conn]struct{}{}
	}
	t.open[c] = struct{}{}
	t.of(c.Protocol()).begun++
}

// ConnEnded implements kernel.Observer.
func (t *Tally) ConnEnded(c *kernel.Conn, i kernel.ConnInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	w := t.of(i.Protocol)
	w.ended[i.Code]++
	w.sums.add(&i)
}

// of returns what is kept of a protocol. The lock is held.
func (t *Tally) of(protocol string) *wire {
	w := t.past[protocol]
	if w == nil {
		if t.past == nil {
			t.past = map[string]*wire{}
		}
		w = &wire{ended: map[status.Code]uint64{}}
		t.past[protocol] = w
	}
	return w
}

// Read adds up what has ended and what is open. What has waited for less than a while is not
// counted as blocked. If streams is set each open stream is looked at, which takes less than a
// microsecond; else no stream is blocked.
//
// A connection that ends meanwhile is counted once, so the sums of one Read after the other grow.
func (t *Tally) Read(a time.Duration, streams bool) Reading {
	conns, r := t.copy()
	index := map[string]*Wire{}
	for i := range r.Wires {
		index[r.Wires[i].Protocol] = &r.Wires[i]
	}
	for _, c := range conns {
		i := c.Snapshot()
		index[i.Protocol].add(&i)
		if b := r.Blocked[i.BlockedOn]; b != nil {
			b.LongestConn = max(b.LongestConn, i.BlockedFor)
			b.Conns += since(i.BlockedFor, a)
		}
		if !streams {
			continue
		}
		for s := range c.EachStream {
			i := s.Snapshot()
			if b := r.Blocked[i.BlockedOn]; b != nil {
				b.LongestStream = max(b.LongestStream, i.BlockedFor)
				b.Streams += since(i.BlockedFor, a)
			}
		}
	}
	return r
}

// since is 1 if d is a or more.
func since(d, a time.Duration) int {
	if d >= a {
		return 1
	}
	return 0
}

// copy returns the open connections, and what is left of the others.
func (t *Tally) copy() ([]*kernel.Conn, Reading) {
	r := Reading{Blocked: map[kernel.BlockedOn]*Blocked{}}
	for _, b := range reasons {
		r.Blocked[b] = &Blocked{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for protocol, w := range t.past {
		r.Wires = append(r.Wires, Wire{Protocol: protocol, Begun: w.begun, Ended: maps.Clone(w.ended), Sums: w.sums})
	}
	slices.SortFunc(r.Wires, func(a, b Wire) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return slices.Collect(maps.Keys(t.open)), r
}

func (w *Wire) add(i *kernel.ConnInfo) {
	w.Sums.add(i)
	w.Conns++
	w.Streams += i.Streams
	w.Handlers += i.Handlers
	w.Queued += i.Queued
	w.Unread += i.Unread
	w.InFlight += i.InFlight
}
