package frame

import "time"

// What follows are things that a session may implement besides Session, because
// its protocol needs them. Who runs the connection asks for each once.

// A Parent is the session of a connection that other connections can belong to:
// where a stream has a connection of its own, calls are made on its parent. The
// parent's end ends its children.
type Parent interface {
	// ConnID is the connection's number, which both sides know; 0 if it has none,
	// and then no stream either.
	ConnID() uint64
}

// A Child is the session of a connection that carries one stream and nothing
// else, numbered 1.
type Child interface {
	// ParentID is the ConnID of the connection that it belongs to.
	ParentID() uint64
	// ConnID is the stream's own number. In a call on the parent it stands for
	// the stream.
	ConnID() uint64
}

// A Pauser is a session that can be unable to take more for now.
type Pauser interface {
	// Full belongs to the reader, who calls it after each input. It is nil when
	// reading may go on. Else reading waits until the channel is closed; then Next
	// is called with nothing until it returns None, and Full again.
	Full() (wait <-chan struct{})
}

// A Holder is a session that keeps input of its own: of what it can't hand on before
// all of it is there.
type Holder interface {
	// Held is how many bytes it keeps. It belongs to the reader.
	Held() int
}

// A Local is a session with events that writing causes, and not what the peer
// sends: the answer to an open that its protocol has no answer for.
type Local interface {
	// Local belongs to the writer, who calls it after each Flush, until it returns
	// false. It fills f with an event, as Next does.
	Local(f *Frame) bool
}

// An Ender is a session that knows when its connection has nothing left to do,
// and wants to know of its end.
type Ender interface {
	// Over belongs to the writer, who asks after each Flush. over says that the
	// connection ends when what was flushed is written: at once if linger is 0,
	// else with the peer's FIN, which is then in order, or after linger.
	Over() (linger time.Duration, over bool)
	// Closed is called once, when the connection has ended or has never begun.
	// Any time after the handshake, by anyone.
	Closed()
}
