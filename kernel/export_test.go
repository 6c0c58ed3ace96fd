package kernel

import "net"

// Timers is how many timers are set, streams' and connections'.
func (s *Server) Timers() int { return s.timers.Len() }

// Timers is how many timers are set, streams' and connections'.
func (c *Client) Timers() int { return c.timers.Len() }

// Addr is where the server listens, the first of its listeners.
func (s *Server) Addr() net.Addr {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	for ln := range s.listeners {
		return ln.Addr()
	}
	return nil
}

// EvictNewest resets the n streams that the peer has opened last, as where a server has too many.
func (c *Conn) EvictNewest(n int) int { return c.c.EvictNewest(n) }
