package conn

import "errors"

// errAgain: the socket takes no more now.
var errAgain = errors.New("sluice: write would block")

// A transport moves bytes. It calls Input with what it reads and lost when the
// connection is gone.
type transport interface {
	// write writes from v, as much as it can, and returns how much. It may
	// return errAgain: then await is to be called.
	write(v [][]byte) (int, error)
	// await has Conn.flush called when more can be written, which may be before it
	// returns: whoever calls it has done with the output.
	await()
	// more tells the reader whether the input that it has is followed by more that
	// is here already. It may say no where it can't know.
	more() bool
	// inPlace tells whether write never waits, so that any goroutine may flush.
	inPlace() bool
	// spawn has Conn.flush run soon, where it may wait if write does.
	spawn()
	// closeWrite tells the peer that nothing more comes, and goes on reading. It
	// returns false if that can't be done.
	closeWrite() bool
	// close ends it. It may be called more than once.
	close()
	// sever has close, and what is being written, wait for nobody.
	sever()
}
