package kernel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Conn is one connection, with many streams on it. It is the same type on both
// sides; either side may open streams on it.
type Conn struct {
	c        *conn.Conn
	id       uint64
	endpoint *endpoint
	peer     Peer
	addr     atomic.Pointer[string] // of the peer, for Snapshot; nil: nobody has asked
	protocol string
	client   bool // this side has opened it
	identity Identity
	caps     frame.Caps
	parent   *Conn         // nil: it has none
	number   uint64        // among the parent's children
	child    *child        // the parent's entry for it; nil: the parent has not taken it
	taken    chan struct{} // closed when a call has named its one stream; nil: none will
	children children
	owner    *Client       // nil on a server
	observed atomic.Uint32 // see observedBegin

	making sync.Mutex // held while attach fills c in: its end waits for that

	lastConfig, configBefore atomic.Pointer[actor.Config]
	running                  runQueue
	used                     atomic.Int64 // bytes that its streams held when the server looked last
	retired                  retired
	goingAway                chan struct{}
	goAwayOnce               sync.Once // closes goingAway
	done                     chan struct{}
	err                      error // set before done is closed
	once                     sync.Once
	onEnd                    func(*Conn) // tells the owner
}

// An Identity is who a peer has proved to be. Authenticate makes it, of any type.
type Identity any

// A Peer describes the other side of a connection.
type Peer struct {
	Addr  net.Addr
	TLS   *tls.ConnectionState // nil without TLS
	Token []byte               // that the peer sent in the handshake
}

// Peer describes the other side.
func (c *Conn) Peer() Peer { return c.peer }

// Identity is what Authenticate returned for the other side.
func (c *Conn) Identity() Identity { return c.identity }

// connIDs counts the connections of the process.
var connIDs atomic.Uint64

// ID is the connection's number among all that the process has had, from 1 on. The peer has
// another one.
func (c *Conn) ID() uint64 { return c.id }

// Protocol is the protocol's name.
func (c *Conn) Protocol() string { return c.protocol }

// Caps tells what the connection can carry.
func (c *Conn) Caps() frame.Caps { return c.caps }

// Conn returns c. It makes a connection a Caller; ctx has no effect.
func (c *Conn) Conn(context.Context) (*Conn, error) { return c, nil }

// Logger is the logger of the connection's server or client. Its handler is called on a
// goroutine of its own, and can neither hold up nor harm who logs.
func (c *Conn) Logger() *slog.Logger { return c.endpoint.logger }

// isOneStream reports whether the connection exists for one stream alone.
func (c *Conn) isOneStream() bool { return c.caps.StreamsByID && c.parent != nil }

// hasNumberedStreams reports whether each stream has a connection of its own and calls on
// c name it by number.
func (c *Conn) hasNumberedStreams() bool { return c.caps.StreamsByID && c.parent == nil }

// Streams is the number of open streams.
func (c *Conn) Streams() int { return c.c.Streams() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, a status.ConnError, or nil while it has not.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// GoingAway returns a channel that is closed when the connection takes no new streams: its
// server drains, or it has ended. Until it has ended, streams that are open go on. A handler
// that could go on for ever should come to its end.
func (c *Conn) GoingAway() <-chan struct{} { return c.goingAway }

func (c *Conn) setGoingAway() { c.goAwayOnce.Do(func() { close(c.goingAway) }) }

// Close closes the connection and waits until it has ended. Open streams fail with
// status.ConnectionLost on both sides. On this side their channels (In, Batches, and In of
// package rpc) are closed at once; messages that were not taken from them are left for
// Receive.
func (c *Conn) Close() error {
	c.shut(status.Cancelled, "the connection was closed")
	<-c.done
	return nil
}

// Drain ends the connection in order and does not wait: it does for one connection what
// Server.Shutdown does for all. The peer is told to open no more streams, open ones go on,
// and the connection ends with the last of them. Nothing limits that time: Close does.
func (c *Conn) Drain() { c.drain(nil) }

// shut closes the connection and does not wait. If streams are open the peer is told code
// and reason.
func (c *Conn) shut(code status.Code, reason string) {
	c.retired.endFeeding()
	c.c.Close(code, reason)
	c.shutChildren()
}

var errDrainOver = errors.New("the time to drain is over")

// drainOver ends the connection, which is still open at the end of a drain.
func (c *Conn) drainOver() {
	c.retired.endFeeding()
	c.c.Fail("close", status.GoingAway, errDrainOver)
	c.shutChildren()
}

// mostMetadata is how many bytes of metadata can be sent to the peer at once, where the
// protocol carries any.
func (c *Conn) mostMetadata() int {
	return int(min(c.c.PeerSettings().MaxMetadata, uint64(c.caps.MaxMetadata)))
}

// inlined reports whether m fits into the frame that opens or accepts n streams. There an
// empty message can't be told from none.
func (c *Conn) inlined(m pool.Message, n int) bool {
	return m.IsZero() || m.Len() > 0 && m.Len() <= c.caps.MaxInline-c.caps.GrantSize*(n-1)
}

// checkMetadata returns why md can't be sent, or nil. more is the number of other bytes
// in the frame that count as metadata.
func (c *Conn) checkMetadata(md metadata.MD, more int) error {
	if c.caps.MaxMetadata == 0 {
		return c.checkOwnKeys(md)
	}
	if n := md.Size() + more; n > c.mostMetadata() {
		return fmt.Errorf("%w: %d bytes, the peer takes %d", ErrMetadataTooLarge, n, c.mostMetadata())
	}
	if key, why := c.caps.BadField(md); why != "" {
		return fmt.Errorf("%w: %q %s", ErrMetadataKey, key, why)
	}
	return nil
}

// checkOwnKeys is checkMetadata where the protocol carries no metadata: keys that begin with
// its name are instructions to it.
func (c *Conn) checkOwnKeys(md metadata.MD) error {
	for i := range md {
		if !strings.HasPrefix(md[i].Key, c.protocol+"-") {
			return fmt.Errorf("%w: %s carries no metadata, such as %q", ErrNotSupported, c.protocol, md[i].Key)
		}
	}
	return nil
}
