package conn

// usable is why n streams can't be opened now, or nil. Conn.mu is held.
func (c *Conn) usable(n int) error {
	switch {
	case c.cause != nil:
		return c.cause
	case c.goAway.received || c.goAway.sent:
		return ErrGoingAway
	case c.localStreams+n > int(c.peerSettings.Load().MaxStreams), !c.sess.Allows(c.localStreams, n):
		return ErrTooManyStreams
	case !c.hasNumbers(n):
		return ErrGoingAway
	}
	return nil
}

// hasNumbers reports whether there are numbers for n more streams. Streams that are
// open are counted as if none had its number yet. Conn.mu is held.
func (c *Conn) hasNumbers(n int) bool { return c.nextLocal+uint64(2*(c.localStreams+n)) <= c.maxStream }

// Usable reports whether streams can be opened, now or when others have ended.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause == nil && !c.goAway.received && !c.goAway.sent && c.hasNumbers(c.caps.MaxGroup)
}

// Reserve counts n streams that are about to be opened, and returns what each of them has as a
// fresh one, for OpenLocal. alone requires a connection on which we have opened none. After an
// error OnFree's function is called when there may be room again.
func (c *Conn) Reserve(n int, alone bool) (fresh int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(n); err != nil {
		return 0, err
	}
	if alone && c.localStreams > 0 {
		return 0, ErrTooManyStreams
	}
	c.localStreams += n
	c.streams.Add(int32(n))
	return c.takeFresh(n), nil
}

// OnFree sets the function to be called, under no lock, when one of our streams has
// ended or the peer allows more of them.
func (c *Conn) OnFree(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onFree = f
}

// OpenLocal makes p the port of stream s, which we open after Reserve. The stream gets
// its number when its first frame is written. sibling is the stream before it in a
// request that opens several, or nil. It returns the stream's first credit.
func (c *Conn) OpenLocal(p *Port, s Stream, sibling *Port, fresh int) (credit uint64) {
	p.c, p.s, p.local = c, s, true
	p.haveFresh(fresh)
	if sibling != nil {
		sibling.sibling, p.follower = p, true
	}
	p.age.begin(c.clock())
	settings := c.peerSettings.Load()
	p.initialCredit = startCredit(settings)
	return settings.InitialCredit
}

// PreparePeer makes p the port of stream s, which the peer opens, by a call if call is set.
// OpenPeer adds it to the connection.
func (c *Conn) PreparePeer(p *Port, s Stream, call bool) {
	p.c, p.s = c, s
	if call && c.caps.PeerCalls > 0 {
		p.marks.Or(peerCall)
	}
	p.age.begin(c.health.heardAt.Load())
}

// OpenPeer adds p to the connection as stream id, and charges it with the bytes that
// it keeps of its Open. Handler.Open calls it.
func (c *Conn) OpenPeer(p *Port, id uint64, openBytes int) {
	p.id.Store(id)
	c.mu.Lock()
	c.table.add(p)
	p.charge(openBytes)
	c.peerStreams++
	if p.has(peerCall) {
		c.peerCalls++
	}
	c.streams.Add(1)
	p.haveFresh(c.takeFresh(1))
	c.growth += openBytes + StreamSize + HandlerSize
	grown := c.growth
	if grown >= growthOpens {
		c.growth = 0
	}
	c.mu.Unlock()
	if grown >= growthOpens {
		c.cfg.Growth.add(int64(grown))
	}
}

// retire removes a stream that is over.
func (c *Conn) retire(p *Port) {
	now := c.clock()
	p.age.end(now)
	c.mu.Lock()
	p.retired = true
	c.laps.end(p)
	c.isRead(p)
	c.giveBack(p, int(p.extra.Load()))
	p.charge(-int(p.openBytes))
	id := p.id.Load()
	if id != 0 {
		c.table.remove(id)
	}
	if p.local {
		c.localStreams--
	} else {
		c.peerStreams--
		if p.has(peerCall) {
			c.peerCalls--
		}
	}
	if p.evicted {
		c.evictedStreams--
	}
	c.streams.Add(-1)
	last := c.noStreams()
	free := c.onFree
	c.mu.Unlock()
	c.out.remove(p, id == 0)
	if c.out.slots.n.Load() > 0 {
		c.out.removeSlot(p)
	}
	if last {
		c.lastStreamGone(now)
	}
	if free != nil && p.local {
		free()
	}
}
