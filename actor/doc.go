// Package actor is one stream's life: a state machine, its mailbox, its
// windows and its idle timer, and the goroutine that runs while there is work
// for one.
//
// A Stream is stepped by one party at a time, under its lock: the connection's
// reader, a sender, a timer or its own goroutine. The lock is never held across
// a system call or a channel operation that can wait. A stream that nobody
// touches owns no goroutine, no channel and no runtime timer.
//
// The package knows nothing of connections: what a stream needs of one is the
// interface Link.
package actor
