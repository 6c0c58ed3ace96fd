package kernel

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
)

// A Conn is one connection, with many streams on it. It is the same type on both
// sides; either side may open streams on it.
type Conn struct {
	c        *conn.Conn
	endpoint *endpoint
	peer     Peer
	protocol string
	client   bool // we opened it
	identity Identity
	caps     frame.Caps
	parent   *Conn  // whose child it is, if any
	number   uint64 // among its parent's children
	child    *child // what the parent knows of it; nil: the parent does not have it
	children children
	owner    *Client // nil on a server

	lastConfig, configBefore atomic.Pointer[actor.Config]
	running                  handlers
	retired                  retired
	done                     chan struct{}
	err                      error // set before done is closed
	once                     sync.Once
	onEnd                    func(*Conn) // tells the owner
}

// An Identity is who a peer proved to be; what it is, Authenticate decides.
type Identity any

// A Peer is what is known of the other side of a connection.
type Peer struct {
	Addr  net.Addr
	TLS   *tls.ConnectionState // nil without TLS
	Token []byte               // what it sent in its hello
}

// Peer is what is known of the other side.
func (c *Conn) Peer() Peer { return c.peer }

// Identity is who the other side proved to be, as Authenticate said.
func (c *Conn) Identity() Identity { return c.identity }

// Protocol is the name of the wire.
func (c *Conn) Protocol() string { return c.protocol }

// Caps tells what the connection can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Conn returns c. It makes a connection a Caller; ctx has no effect.
func (c *Conn) Conn(context.Context) (*Conn, error) { return c, nil }

// Logger is that of the options of the server or client that c belongs to.
func (c *Conn) Logger() *slog.Logger { return c.endpoint.logger }

// Balance is what the connection owes and is owed now, for tests and for a look at a
// program that stands still.
func (c *Conn) Balance() conn.Balance {
	b := c.c.Balance()
	b.Held += int(c.retired.bytes.Load())
	return b
}

// isOneStream tells whether the connection is there for one stream alone.
func (c *Conn) isOneStream() bool { return c.caps.StreamsByID && c.parent != nil }

// hasNumberedStreams tells whether streams get connections of their own, and calls on
// this one name them.
func (c *Conn) hasNumberedStreams() bool { return c.caps.StreamsByID && c.parent == nil }

// Streams is how many streams are open.
func (c *Conn) Streams() int { return c.c.Streams() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, a ConnError, or nil while it has not.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the connection and waits until it is gone. Streams that are open
// fail with CodeConnectionLost, on both sides. Their In, Batches and C are closed
// on this side, also where messages wait; Receive takes those.
func (c *Conn) Close() error {
	c.shut()
	<-c.done
	return nil
}

// shut ends the connection from this side. What its streams have not handed over on
// a channel stays for Receive.
func (c *Conn) shut() {
	c.retired.endFeeding()
	c.c.Close()
}

// mostMetadata is how many bytes of metadata can be sent to the peer.
func (c *Conn) mostMetadata() int {
	return int(min(c.c.PeerSettings().MaxMetadata, uint64(c.caps.MaxMetadata)))
}

// inlined tells whether m travels in the frame that opens or accepts n streams.
func (c *Conn) inlined(m Message, n int) bool {
	return m.Len() <= c.caps.MaxInline-c.caps.GrantSize*(n-1)
}

// checkMetadata tells why md can't be sent, in a frame with more bytes that count, or
// nil.
func (c *Conn) checkMetadata(md Metadata, more int) error {
	if n := md.Size() + more; n > c.mostMetadata() {
		return fmt.Errorf("%w: %d bytes, the peer takes %d", ErrMetadataTooLarge, n, c.mostMetadata())
	}
	if !md.Valid() {
		return ErrMetadataKey
	}
	return nil
}
