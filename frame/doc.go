// Package frame says what goes over the wire, as values and rules: it does no
// I/O, starts no goroutine and reads no clock.
//
// A protocol is a Session: bytes in, frames out, and frames in, bytes out. The
// native protocol is package frame/native. Nothing above this package asks
// which protocol it is talking; it asks for the session's capabilities.
package frame
