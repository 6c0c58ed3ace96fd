// Package seastar speaks the RPC protocol of scylladb/seastar: calls, many on one
// connection, and streams, each on a connection of its own that belongs to the
// one with the calls.
//
// It does no I/O and starts no goroutine. The only clock that it reads is
// Protocol.Now, for the time left of a call and the time that a handler took.
package seastar
