package kernel

import (
	"context"
	"strconv"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// A Caller makes calls and opens streams. A *Client and a *Conn are Callers. A program can
// wrap one in a type of its own, which must be comparable, such as a pointer: a sink of
// package rpc works with the Caller that it was made for.
type Caller interface {
	// Open opens a stream: see Conn.Open.
	Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error)
	// OpenN opens several streams with one request: see Conn.OpenN.
	OpenN(ctx context.Context, method string, opts *OpenOptions, each ...StreamOptions) ([]*Stream, error)
	// Call makes a unary call: see Conn.Call.
	Call(ctx context.Context, method string, req pool.Message, opts *CallOptions) (pool.Message, error)
	// Conn returns a connection that takes streams. A client makes one if there is
	// none; a connection returns itself.
	Conn(ctx context.Context) (*Conn, error)
	// Caps tells what the protocol can carry. It needs no connection.
	Caps() frame.Caps
}

var (
	_ Caller = (*Client)(nil)
	_ Caller = (*Conn)(nil)
)

// Verb is the method with number n, such as "#7", on protocols whose methods are numbers
// (Seastar's).
func Verb(n uint64) string { return "#" + strconv.FormatUint(n, 10) }
