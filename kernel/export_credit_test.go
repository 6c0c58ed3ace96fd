package kernel

// Unread is how many bytes of credit wait here to be taken, or to be written, and
// are assembled.
func (c *Conn) Unread() int {
	return c.c.MemoryUse() - c.Snapshot().OpenBytes + int(c.retired.bytes.Load())
}

// Held is that and what streams keep of what opened, answered and ended them: what
// the server's budget counts.
func (c *Conn) Held() int { return c.c.MemoryUse() + int(c.retired.bytes.Load()) }

// Waiting is how many offers wait for a handler to return, and how many bytes of
// credit their streams hold unread.
func (c *Conn) Waiting() (n, unread int) {
	c.running.mu.Lock()
	defer c.running.mu.Unlock()
	for _, j := range c.running.wait {
		unread += j.o.streams[0].c.Unread()
	}
	return len(c.running.wait), unread
}
