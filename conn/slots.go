package conn

import "sync/atomic"

// slots is the streams that may offer a slot which nobody has taken yet: it is worth
// nothing when others have used up the connection's room.
type slots struct {
	n  atomic.Int32 // len(of), for who holds no lock
	of map[*Port]struct{}
}

// AwaitFull implements actor.Link.
func (p *Port) AwaitFull() {
	c, o := p.c, &p.c.out
	o.mu.Lock()
	if o.slots.of == nil {
		o.slots.of = map[*Port]struct{}{}
	}
	o.slots.of[p] = struct{}{}
	o.slots.n.Store(int32(len(o.slots.of)))
	o.mu.Unlock()
	c.mu.Lock()
	gone := p.retired
	c.mu.Unlock()
	switch {
	case gone: // meanwhile: it did not find p
		o.forgetSlot(p)
	case !c.room():
		o.withdrawSlots()
	}
}

// withdrawSlots tells the streams that there is no room.
func (o *output) withdrawSlots() {
	o.mu.Lock()
	of := o.slots.of
	o.slots.of = nil
	o.slots.n.Store(0)
	o.mu.Unlock()
	for p := range of {
		p.s.RoomGone()
	}
}

// noSlot forgets p, whose stream is over.
func (o *output) forgetSlot(p *Port) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.slots.of, p)
	o.slots.n.Store(int32(len(o.slots.of)))
}
