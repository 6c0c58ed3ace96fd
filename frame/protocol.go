package frame

import (
	"context"
	"io"
)

// SniffLen is how many bytes tell the protocols apart, at most.
const SniffLen = 24

// A Verdict is what a protocol says of a connection's first bytes.
type Verdict uint8

// The verdicts.
const (
	No   Verdict = iota // not this protocol
	Yes                 // this protocol
	More                // can't tell yet
)

// A Protocol makes sessions.
type Protocol interface {
	// Name is what targets and logs call it.
	Name() string
	// Detect looks at the first bytes that a client sent, SniffLen at most.
	Detect(first []byte) Verdict
	// Caps tells what connections of this protocol can carry, before there is one.
	Caps() Caps
	// Handshake does what comes before the first frame of a stream. It may
	// wait: it runs in a goroutine of its own, and rw has a deadline.
	Handshake(ctx context.Context, rw io.ReadWriter, h *Greeting) (Session, error)
}

// A Greeting is what a handshake works with, and what it finds out.
type Greeting struct {
	Client bool
	// Parent is the ID of the connection that this one belongs to, where a stream has a
	// connection of its own (Caps.StreamsByID); 0: none. A client's is given, a server's
	// handshake finds it out.
	Parent uint64
	// Adopt is called by a server before it answers a connection that has a Parent: the
	// client may name its stream on the parent as soon as it has the answer. It may wait.
	// A handshake that fails takes it back.
	Adopt func(ctx context.Context, parent, id uint64) error
	// Authority is the host and port that a client dials, as its program named them.
	Authority string
	Secure    bool     // the connection is encrypted below
	First     []byte   // what a server has read to detect the protocol
	Own       Settings // what to say
	// Authenticate is called by a server with what the client said, before it
	// is told that it is let in.
	Authenticate func(ctx context.Context, peer *Settings) error
	// Guard is how a server calls any other function of the program's: one that panics,
	// or does not return in time, is an error. nil: as it is.
	Guard func(ctx context.Context, hook func(ctx context.Context) error) error

	// What follows is what the handshake has found out.

	Peer  Settings // what the peer said
	Early []byte   // bytes read beyond the handshake
	ID    uint64   // the connection's number, which both sides know; 0: it has none
}
