// Package conn is one connection's life: bytes in from a transport, frames to
// streams, frames out in fair order.
//
// Conn.Input takes what was read and hands every frame to its stream. It never waits. Output is gathered by one flush at a time: control frames first,
// then streams in turn, as far as the connection's credit and the bytes in
// flight allow. A transport is a gnet event loop, or any net.Conn.
//
// The package knows nothing of actors: what a connection needs of a stream is
// the interface Stream.
package conn
