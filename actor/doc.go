// Package actor is one stream's life: a state machine, its mailbox, its windows, its
// channels, and the goroutine that runs while there is work for one.
//
// A Stream is stepped by one party at a time, under its lock: the connection's
// reader, a sender, a timer or its own goroutine. The lock is never held across
// a system call or a channel operation that can wait. A stream that nobody
// touches owns no goroutine, no channel and no runtime timer.
//
// The package knows nothing of connections: what a stream needs of one is the
// interface Link.
//
// Files use those below them, and hardly ever one above:
//
//	open, peer, fragment, deliver        what the peer says and sends
//	send, out, accept, fill              messages to send, until they are encoded
//	receive, end                         reading by method; ending a stream
//	feed, firstmessage, effects          In and Batches; what a change of state leads to
//	slot, done, unread, pacing, queue    accounts of what is unread and what is unsent
//	info                                 the stream's figures, for who looks at it
//	stream                               the type
//	state, window, channels, link, ...   its parts, and what it needs of the connection
package actor
