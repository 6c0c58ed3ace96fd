package kernel

import (
	"net"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
)

// Balance is what the connection owes and is owed.
func (c *Conn) Balance() conn.Balance { return c.c.Balance() }

// Caps is what the connection's protocol can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Conns returns the client's connections, dedicated ones too.
func (c *Client) Conns() []*Conn {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	cs := append([]*Conn(nil), c.conns...)
	for k := range c.dedicated {
		cs = append(cs, k)
	}
	return cs
}

// Conns returns the server's connections.
func (s *Server) Conns() []*Conn {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	var cs []*Conn
	for c := range s.conns {
		cs = append(cs, c)
	}
	return cs
}

// Timers is how many timers are set, streams' and connections'.
func (s *Server) Timers() int { return s.timers.Len() }

// Timers is how many timers are set, streams' and connections'.
func (c *Client) Timers() int { return c.timers.Len() }

// StreamOf is the stream of an offer that may not be accepted yet.
func StreamOf(o *Offer) *Stream { return o.streams[0] }

// Addr is where the server listens, the first of its listeners.
func (s *Server) Addr() net.Addr {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	for ln := range s.listeners {
		return ln.Addr()
	}
	return nil
}
