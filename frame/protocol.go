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
	Parent uint64 // client: the connection that a stream's own connection belongs to; 0: none
	// Adopt is called by a server before it welcomes a connection that carries a
	// stream of another one: whoever hears of the welcome may name the stream there
	// at once. It may wait. A handshake that fails takes it back.
	Adopt func(ctx context.Context, parent, id uint64) error
	First []byte   // what a server has read to detect the protocol
	Own   Settings // what to say
	// Authenticate is called by a server with what the client said, before it
	// is told that it is welcome.
	Authenticate func(ctx context.Context, peer *Settings) error
	// Ask is how a server calls any other function of the program's: one that panics,
	// or does not return in time, is an error. nil: as it is.
	Ask func(ctx context.Context, hook func(ctx context.Context) error) error

	Peer  Settings // what the peer said
	Early []byte   // bytes read beyond the handshake
}
