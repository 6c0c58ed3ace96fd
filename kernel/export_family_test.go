package kernel

import "context"

// Child is the stream that a call on the connection names.
func (c *Conn) Child(ctx context.Context, id uint64) (*Stream, error) { return c.child(ctx, id) }

// ChildID is what a call names the stream by.
func (s *Stream) ChildID() uint64 { return s.c.conn.kin.id }
