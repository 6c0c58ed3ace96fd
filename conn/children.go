package conn

// Hold says that one more stream belongs to the connection that is open on another:
// until Unhold the connection is neither idle nor drained.
func (c *Conn) AddChild() {
	c.mu.Lock()
	c.children++
	c.mu.Unlock()
}

// Unhold takes a Hold back. It may end a connection that was only waiting for that.
func (c *Conn) RemoveChild() {
	c.mu.Lock()
	c.children--
	last := c.noStreams()
	c.mu.Unlock()
	if last {
		c.lastStreamGone()
	}
}

// EndSoon ends the connection a moment from now, if it has not ended by then: what is
// being written may be all that keeps it from its end, for as long as the peer likes.
func (c *Conn) EndSoon() {
	k := &c.keeper
	if c.Err() == nil && !k.dead.Load() {
		k.linger(c, lingerTime)
	}
}

// bare tells whether there is no stream, here or elsewhere. The lock is held.
func (c *Conn) noStreams() bool { return c.local+c.peer+c.children == 0 }

func (c *Conn) hasNoStreams() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.noStreams()
}
