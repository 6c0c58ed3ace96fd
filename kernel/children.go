package kernel

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/status"
)

// children are the connections that belong to one connection, their parent, and end with
// it. A dedicated stream's connection is a child. Where every stream has a connection of
// its own (frame.Caps.StreamsByID), each of these is one too, and calls on the parent name
// the streams by number.
type children struct {
	id uint64 // the parent's, which both sides know; 0: it has none

	mu       sync.Mutex
	of       map[uint64]*child // by number, those that are being set up among them
	last     uint64            // the number given to a child last, where the protocol gives none
	over     bool              // the parent has ended,
	graced   bool              // and its children have childGrace
	draining bool              // no new call will name a stream
	opening  int               // streams that this side has reserved room for
	served   int               // children whose streams functions serve, ended ones included
}

// A child is a parent's entry for one child. The lock of children owns it.
type child struct {
	conn    *Conn         // nil while a client is setting it up
	arrived chan struct{} // closed when stream is known, or never will be; nil: no call can name it here
	stream  *Stream       // for the call that names it
	claimed bool          // by a call; or the child has ended
	holds   bool          // it keeps its parent from being idle or drained
	opened  bool          // this side has opened its streams
	serving int           // functions that serve its stream

	grace    timers.Timer // see childGrace
	graceEnd time.Time    // see mostGrace; set before the timer is, and heard too
	heard    uint64       // bytes that had come when the timer was set; the timer's
}

var (
	errNoParent = errors.New("the connection that the stream belongs to is gone")
	errTwice    = errors.New("stream number already in use")
)

// childGrace is how long a child is read on after the peer has closed its parent, from when
// nothing more comes and nothing waits for its reader. A peer that closes all connections at
// once may have sent data and ends on each before. mostGrace is how long in all: a reader may
// be slow, but not for good.
const (
	childGrace = time.Second
	mostGrace  = time.Minute
)

// addChild makes k, which is new, a child of c. number is the one that the protocol gave it.
func (c *Conn) addChild(k *Conn, number uint64) error {
	cs := &c.children
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !c.caps.StreamsByID {
		cs.last++
		number = cs.last
	}
	k.parent, k.number = c, number
	entry := cs.of[number]
	switch {
	case cs.over:
		return errNoParent
	case entry == nil:
		entry = cs.add(number)
	case entry.conn != nil: // a server that gives a number twice
		return errTwice
	}
	entry.conn, k.child = k, entry
	if c.caps.StreamsByID && !cs.draining { // else no call can name its stream
		entry.hold()
	}
	return nil
}

// add makes an entry. The lock is held.
func (cs *children) add(number uint64) *child {
	if cs.of == nil {
		cs.of = map[uint64]*child{}
	}
	entry := &child{}
	cs.of[number] = entry
	return entry
}

// hold has the parent live on for the stream of a child. The lock is held.
func (k *child) hold() {
	if !k.holds {
		k.holds = true
		k.conn.parent.c.AddChild()
	}
}

// unhold undoes hold. It returns a function to call without the lock: it may end the
// parent.
func (k *child) unhold() func() {
	if !k.holds {
		return func() {}
	}
	k.holds = false
	return k.conn.parent.c.RemoveChild
}

// reserve makes room for n more children if at most most may have open streams.
func (cs *children) reserve(n, most int) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case cs.over:
		return errNoParent
	case len(cs.of)+cs.opening+n > most && cs.open()+cs.opening+n > most: // the first is quick, and counts too many
		return fmt.Errorf("%w: %d", ErrTooManyStreams, most)
	}
	cs.opening += n
	return nil
}

// opened follows reserve, for one of the n: its stream is open on k.
func (cs *children) opened(k *Conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.opening--
	if k.child != nil {
		k.child.opened = true
	}
}

// unreserve follows reserve, for n that could not be opened.
func (cs *children) unreserve(n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.opening -= n
}

// count is how many children there are.
func (cs *children) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.of)
}

// open is how many streams are open. The lock is held.
func (cs *children) open() (n int) {
	for _, k := range cs.of {
		if k.opened && k.conn.c.Streams() > 0 {
			n++
		}
	}
	return n
}

// remove removes the child with a number, if it is k or still being set up. What an
// unclaimed stream holds is dropped: nobody will read it.
func (cs *children) remove(number uint64, k *Conn) {
	cs.mu.Lock()
	entry := cs.of[number]
	if entry == nil || entry.conn != nil && entry.conn != k {
		cs.mu.Unlock()
		return
	}
	delete(cs.of, number)
	unhold := entry.unhold()
	unclaimed := entry.arrived != nil && !entry.claimed
	entry.claimed = true
	cs.mu.Unlock()
	unhold()
	switch {
	case !unclaimed:
	case entry.stream == nil:
		close(entry.arrived)
	default:
		entry.stream.discard()
	}
}

// drain ends the connection in order, because of why: see conn.Conn.Drain. It does not wait
// for streams that no call has claimed. No new call can; a call that is under way may, and is
// waited for.
func (c *Conn) drain(why error) {
	cs := &c.children
	var unhold []func()
	cs.mu.Lock()
	cs.draining = true
	for _, k := range cs.of {
		if k.conn != nil && k.arrived != nil && !k.claimed {
			unhold = append(unhold, k.unhold())
		}
	}
	cs.mu.Unlock()
	for _, u := range unhold {
		u()
	}
	c.setGoingAway()
	c.c.Drain(why)
}

// leaveParent is called when the connection has ended.
func (c *Conn) leaveParent() {
	if c.parent == nil {
		return
	}
	c.parent.children.remove(c.number, c)
	if c.child != nil {
		c.endpoint.timers.Stop(&c.child.grace)
	}
}

// endChildren is called when the connection has ended. Its children end too: at once, or
// after their grace if the peer has closed the connection or the network has failed.
func (c *Conn) endChildren() {
	shut := c.retired.isShut()
	var ce *status.ConnError
	known := errors.As(c.err, &ce)
	told := known && ce.Remote && ce.Code == status.OK // drained, or idle: the peer ends the children too, in order
	lost := known && !told && (ce.Remote || ce.Code == status.ConnectionLost) && !shut
	cs := &c.children
	cs.mu.Lock()
	cs.over, cs.graced = true, lost
	at := time.Now()
	var now []*Conn
	for _, k := range cs.of {
		switch {
		case k.conn == nil || told:
		case lost:
			k.graceEnd, k.heard = at.Add(mostGrace), k.conn.c.Info(at).BytesReceived
			c.endpoint.timers.Set(&k.grace, (*graceTimer)(k.conn), at.Add(childGrace))
		default:
			now = append(now, k.conn)
		}
	}
	cs.mu.Unlock()
	for _, k := range now {
		k.failWithParent()
	}
}

// shutChildren is called when this side closes the connection. If it has ended before, its
// children may have been given a grace, which is over then.
func (c *Conn) shutChildren() {
	cs := &c.children
	cs.mu.Lock()
	var now []*Conn
	for _, k := range cs.of {
		if cs.graced && k.conn != nil {
			now = append(now, k.conn)
		}
	}
	cs.mu.Unlock()
	for _, k := range now {
		k.failWithParent()
	}
}

// failWithParent ends a child because its parent has ended. Where this side has closed the
// parent, there may be no reader of the child's channels any more.
func (c *Conn) failWithParent() {
	if c.parent.retired.isShut() {
		c.retired.endFeeding()
	}
	c.c.Fail("close", status.ConnectionLost, fmt.Errorf("the connection that it belongs to has ended: %w", c.parent.err))
}

// graceTimer is a Conn as the owner of its entry's timer.
type graceTimer Conn

// Expire implements timers.Owner: childGrace has passed.
func (g *graceTimer) Expire(t *timers.Timer, now time.Time) {
	c := (*Conn)(g)
	if c.c.Err() != nil {
		return
	}
	k, i := c.child, c.c.Info(now)
	if (i.Unread > 0 || i.BytesReceived != k.heard) && now.Before(k.graceEnd) {
		k.heard = i.BytesReceived
		c.endpoint.timers.Set(t, g, now.Add(childGrace))
		return
	}
	c.failWithParent()
}
