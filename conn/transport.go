package conn

import "errors"

// errAgain: the transport takes no more now.
var errAgain = errors.New("sluice: write would block")

// A transport moves bytes. It calls Conn.Input with what it reads, and Conn.lost when
// the connection is gone.
type transport interface {
	// write writes as much of v as it can, and returns how much. After errAgain the
	// caller calls await.
	write(v [][]byte) (int, error)
	// await has Conn.flush called when more can be written. That may be before await
	// returns: its caller must not touch the output any more.
	await()
	// more reports to the reader whether further input has arrived already. It may be
	// false where the transport can't know.
	more() bool
	// inPlace reports whether write never waits, so that any goroutine may flush.
	inPlace() bool
	// spawn runs Conn.flush soon, on a goroutine that may wait if write does.
	spawn()
	// closeWrite sends a FIN, and goes on reading. It returns false if that is not
	// possible.
	closeWrite() bool
	// close closes the transport. It may be called more than once.
	close()
	// sever makes close, and a write under way, return without waiting for the peer.
	sever()
}
