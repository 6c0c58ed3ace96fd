// Package status is why streams and connections end: the codes, and the errors that carry
// them. A handler returns a HandlerError; the peer finds its code in a StreamError; and a
// ConnError ends a connection with all its streams.
package status
