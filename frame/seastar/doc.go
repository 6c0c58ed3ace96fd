// Package seastar implements the RPC protocol of scylladb/seastar: many calls share one
// connection, and each stream has a connection of its own, whose parent is the one with
// the calls.
//
// It starts no goroutine, and its only I/O is in Protocol.Handshake. The only clock that
// it reads is Protocol.Now, for the time left of a call and the time that a handler took.
package seastar
