package kernel

import "context"

// Finish ends the stream as the return of a handler of Server.Handle does: nil ends
// both halves in order, after everything sent; an error ends the sending half after
// what was sent, with the status that StatusOf gives. What is unread is dropped. It
// does not wait.
func (s *Stream) Finish(err error) {
	s.accept()
	code, reason := StatusOf(err)
	s.c.Finish(code, reason, s.c.trailer())
}

// Serve runs f in the calling goroutine, as a handler of the stream is run, and
// returns when f has. If f panics, or ends its goroutine, that is logged and counted
// as a handler's panic, and the stream is aborted with CodeInternal. Else Serve does
// not end the stream: f calls Finish. ctx is the stream's Context.
//
// A server counts a stream that it has taken with Conn.TakeStream as served while a
// Serve runs for it.
func (s *Stream) Serve(f func(ctx context.Context)) {
	returned := false
	s.c.conn.serving(1)
	defer s.c.conn.serving(-1)
	defer func() {
		r := recover()
		if returned {
			return
		}
		s.c.conn.endpoint.panicked(s.Method(), s.c.conn.peer.Addr, r)
		s.Abort(CodeInternal, "the handler panicked")
		s.discard()
	}()
	f(s.Context())
	returned = true
}

// Feed runs f, which receives from the stream and hands what it has received to a
// reader of its own, such as the reader of a channel. f returns when done is closed:
// then this side reads no more, because it has called CloseReceive, Close or Abort,
// has closed the connection, or the stream's parent context has ended. A stream that
// the peer has ended is read on until then.
func (s *Stream) Feed(f func(done <-chan struct{})) {
	done := s.c.GivenUp()
	defer s.c.Watched()
	f(done)
}
