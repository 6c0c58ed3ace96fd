package kernel

// Waiting is how many offers wait for a handler to return, and how many bytes of
// credit their streams hold unread.
func (c *Conn) Waiting() (n, unread int) {
	c.running.mu.Lock()
	defer c.running.mu.Unlock()
	for _, j := range c.running.wait {
		n, _ := j.o.streams[0].c.Unread()
		unread += n
	}
	return len(c.running.wait), unread
}
