package conn

// Room in the queue of what is accepted and not written: the streams that wait for it,
// and those that offer a slot, which is worth nothing without.

// room reports whether the connection takes more data.
func (c *Conn) room() bool {
	q := c.queued.Load()
	return q < int64(c.lim.OutQueue) && q < int64(c.granted.Load()-c.sentCost.Load())
}

// roomForLittle is room for a stream of which little is unwritten: it has its turn soon, whatever
// is queued.
func (c *Conn) roomForLittle() bool { return c.granted.Load() > c.sentCost.Load() }

// awaitRoom adds p to the streams that wait for room.
//
// It adds p first, and then checks whether there is room. wakeRoom's callers make room
// first, and then check whether anybody waits. So at least one of the two sees what the
// other has done.
func (c *Conn) awaitRoom(p *Port) {
	c.out.pushRoom(p)
	if c.room() {
		c.wakeRoom()
	}
}

// wakeRoom calls RoomFree of waiting streams, in order, as long as there is room. Its
// caller has just made room.
func (c *Conn) wakeRoom() {
	for c.out.waiters.Load() > 0 && c.room() {
		p := c.out.popRoom()
		if p == nil {
			return
		}
		p.s.RoomFree()
	}
}

// withdrawSlots calls RoomGone of the streams that offer a slot: there is no room.
func (c *Conn) withdrawSlots() {
	for p := range c.out.takeSlots() {
		p.s.RoomGone()
	}
}
