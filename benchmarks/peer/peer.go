// Package peer puts every library that the harness can drive behind one small
// interface, so that the same workload, with the same checks, runs over each
// of them.
package peer

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/sluicerpc/sluice/admin"
)

// A Peer is one library, or one way of using it, under test.
type Peer interface {
	// Name is what tables and flags call it: "sluice", "grpc", "yamux+b".
	Name() string
	// Serve listens on addr ("127.0.0.1:0" for any port) and serves every
	// stream in the mode that its opener asked for, until Close.
	Serve(addr string, o Options) (Server, error)
	// Dial makes one connection.
	Dial(ctx context.Context, addr string, o Options) (Conn, error)
}

// OverTCP reports whether p's connections are TCP's, so that a relay can carry them.
func OverTCP(p Peer) bool {
	n, ok := p.(interface{ Network() string })
	return !ok || n.Network() == "tcp"
}

// Mode says what the server does with a stream.
type Mode byte

const (
	// Echo sends every message back, in order.
	Echo Mode = 'e'
	// Discard checks every message and, when the client ends its half, sends
	// one message back: the Summary of what came.
	Discard Mode = 'd'
	// Park accepts the stream and does nothing until the client closes it. The server
	// need not end its half: a client does not wait for that.
	Park Mode = 'p'
)

// Options are the settings that a workload may need; a peer that lacks one
// ignores it.
type Options struct {
	MaxMessage int  // bytes
	Streams    int  // streams a connection must allow
	Conns      int  // connections an address must allow
	Checksum   bool // integrity check by the transport, where there is a choice
	TLS        bool // for peers that are Secure

	// Duplex says that a stream's sender and receiver are two goroutines.
	// Then Recv does not flush: the sender calls Flush when it has nothing more
	// to send for the moment.
	Duplex bool

	// Serving, if set, holds how many streams the server is serving. Only
	// servers use it.
	Serving *atomic.Int64

	// Pages, if set, shows the servers of sluice. With Observed it is told what begins and
	// ends, too.
	Pages    *admin.Handler
	Observed bool
}

// ErrOtherServer is what a stream's methods fail with if the peer that was dialled speaks the
// library's protocol, and is no Server of it: it serves something else.
var ErrOtherServer = errors.New("it is another kind of server")

// A Server is a listening peer.
type Server interface {
	Addr() string
	Close() error
}

// A Conn is one connection, or what stands for it where streams can't share one.
type Conn interface {
	// Open opens a stream. Streams of one Conn share a connection if the
	// library can do that. An Open that waits ends with ctx or with Close. Let
	// ctx last as long as the stream: in some libraries it bounds that.
	Open(ctx context.Context, m Mode) (Stream, error)
	Close() error
}

// A Stream carries whole messages both ways. One goroutine may send while
// another receives.
type Stream interface {
	// Buf returns a buffer of n bytes for the next message, to be filled and
	// passed to Send. It is pooled where the library has a pool. The buffer
	// of an earlier Buf is invalid, unless Send took it.
	Buf(n int) []byte
	// Send sends p, which is what the last Buf returned. It may buffer it until
	// Flush, CloseSend or a Recv that has to wait (see Options.Duplex) if that is
	// how a user of this library would batch.
	Send(p []byte) error
	// Flush sends what Send has buffered.
	Flush() error
	// Recv returns the next message, io.EOF after the last. It is valid until
	// the next Recv on this stream.
	Recv() ([]byte, error)
	// CloseSend ends the sending half.
	CloseSend() error
	// Close frees the stream.
	Close() error
}

// A Breaker is a Stream whose Close must not be called while another goroutine
// is in Send or Recv.
type Breaker interface {
	// Break makes them fail.
	Break()
}

// Break makes every Send and Recv in s fail, from any goroutine. A Breaker still needs
// Close.
func Break(s Stream) {
	if b, ok := s.(Breaker); ok {
		b.Break()
		return
	}
	_ = s.Close() // it is not needed any more
}

// A CallError is what Send fails with on a stream that stands for unary calls if one of them
// was answered with an error, or not in time. The next Send makes another call.
type CallError struct {
	Code string // as the library names it
	Err  error
}

func (e *CallError) Error() string { return e.Err.Error() }

func (e *CallError) Unwrap() error { return e.Err }
