package kernel

import (
	"context"

	"github.com/sluicerpc/sluice/status"
)

// Finish ends the stream as the return of a Handler does. A nil err ends both halves in
// order; an error ends the sending half with the status that status.Of gives. Either comes
// after everything that was sent. What is unread is dropped. Finish does not wait. A stream
// whose offer was not accepted is aborted.
func (s *Stream) Finish(err error) {
	if o := s.c.acceptOnUse.Load(); o != nil { // one write has the acceptance and the end
		if err != nil && o.refuseUnused(s, err) {
			return
		}
		s.c.holdOutput()
		defer s.c.releaseOutput()
		o.acceptOnUse(s)
	}
	code, reason := status.Of(err)
	s.c.Finish(code, reason, s.c.trailerFor(err))
}

// Serve calls f as a handler of the stream; ctx is the stream's Context. If f panics or
// calls runtime.Goexit, that is logged and counted as a handler's panic, and the stream is
// aborted with status.Internal. Otherwise Serve leaves the stream open: f calls Finish.
//
// A stream from Conn.TakeStream counts as being served while Serve runs for it.
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
		s.Abort(status.Internal, "the handler panicked")
		s.discard()
	}()
	f(s.Context())
	returned = true
}

// Feed calls f, which receives from the stream and passes on what it receives, for example
// to the reader of a channel. f must return when done is closed. That happens when this
// side reads no more: after CloseReceive, Close or Abort, when it has closed the
// connection, and when the stream's parent context has ended. The peer's end of the stream
// does not close done.
func (s *Stream) Feed(f func(done <-chan struct{})) {
	done := s.c.BeginFeed()
	defer s.c.EndFeed()
	f(done)
}
