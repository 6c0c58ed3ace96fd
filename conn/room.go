package conn

// Room in the queue of what is accepted and not written: the streams that wait for it,
// and those that offer a slot, which is worth nothing without.

// room reports whether the connection takes more data.
func (c *Conn) room() bool {
	q := c.queued.Load()
	return q < int64(c.lim.OutQueue) && q < int64(c.granted.Load()-c.sentCost.Load())
}

// awaitRoom adds p to the streams that wait for room.
func (c *Conn) awaitRoom(p *Port) {
	c.out.pushRoom(p)
	if c.room() { // it came free before p was added
		c.wakeRoom()
	}
}

// wakeRoom calls RoomFree of waiting streams, in order, as long as there is room.
func (c *Conn) wakeRoom() {
	for c.room() {
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
