// Package frame says what goes over the wire, as values and rules. It starts no
// goroutine and keeps no socket.
//
// A Protocol does a connection's handshake, which is the only I/O here, on what it is
// given. It makes a Session, which turns bytes into frames and frames into bytes. A
// session asks its Out for the time. The native protocol is package frame/native.
//
// Nothing above this package asks which protocol it is talking: it asks for its
// capabilities, Caps.
package frame
