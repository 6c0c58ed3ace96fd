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

// A Greeting is the input and the result of a handshake.
type Greeting struct {
	Client bool
	// Parent is the ID of the connection that this one belongs to, where a stream has a
	// connection of its own (Caps.StreamsByID); 0: none. It is given to a client, and set
	// by a server's handshake.
	Parent uint64
	// AddChild is called by a server before it answers a connection that has a Parent: the
	// client may name its stream on the parent as soon as it has the answer. It may wait.
	// A handshake that fails takes it back.
	AddChild func(ctx context.Context, parent, id uint64) error
	// Authority is the host and port that a client dials, as its program named them.
	Authority string
	Secure    bool     // the connection is over TLS
	First     []byte   // what a server has read to detect the protocol
	Own       Settings // what this side announces
	// Authenticate is called by a server with the client's settings, before it answers
	// the client.
	Authenticate func(ctx context.Context, peer *Settings) error
	// Guard is how a server calls any other function of the program: it returns an error
	// if that panics or does not return in time. nil: the server calls it directly.
	Guard func(ctx context.Context, hook func(ctx context.Context) error) error

	// The handshake sets what follows.

	Peer  Settings // what the peer has announced
	Early []byte   // bytes read beyond the handshake
	ID    uint64   // the connection's number, which both sides know; 0: it has none
}
