package kernel

// Unread is how many bytes of credit wait here to be taken, or to be written, and
// are assembled.
func (c *Conn) Unread() int { return c.c.Held() + int(c.left.bytes.Load()) }
