// Package triple is gRPC on HTTP/2: the wire of gRPC programs in any language, as server
// and as client. Triple of Apache Dubbo's programs is the same wire, with headers of its own,
// which are metadata here.
//
// A call is one HTTP/2 stream. The request's headers open it, each message travels behind a
// prefix of 5 bytes in DATA frames, and the server's trailers end it with a status. The
// package holds the rules of HTTP/2 (RFC 9113, RFC 7541) as far as gRPC needs them, and
// gRPC's own (PROTOCOL-HTTP2.md of grpc/grpc). It does no input or output.
//
// docs/interop.md says what becomes of what, and what HTTP/2 can't carry.
package triple
