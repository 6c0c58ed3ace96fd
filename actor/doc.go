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
// Each file uses those below it. A reader may begin at either end:
//
//	open, peer         what the peer says: answers, grants, ends
//	deliver, fragment  data that arrives; firstmessage, feed and receive bring it on
//	send, out          data to send; accept and queue it, and fill, which encodes it
//	end                how a stream ends; effects, what a change of state leads to
//	slot, done, unread, pacing
//	stream             the type, with state, window, channels, link and other parts
package actor
