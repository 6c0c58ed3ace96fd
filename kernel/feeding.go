package kernel

import "sync"

// feeding is the streams of a connection that are over and of which a channel is
// still fed: a goroutine waits there for a reader. It must not wait for good when
// this side closes the connection, for then there may be no reader any more.
type feeding struct {
	mu   sync.Mutex
	of   map[*core]struct{}
	shut bool // this side has closed the connection
}

// shut ends the connection from this side. What its streams have not handed over on
// a channel stays for Receive.
func (c *Conn) shut() {
	c.unfeed()
	c.c.Close()
}

// unfeed has nobody wait for a reader of the connection's channels when it has ended.
func (c *Conn) unfeed() {
	f := &c.feeding
	f.mu.Lock()
	of := f.of
	f.shut, f.of = true, nil
	f.mu.Unlock()
	for s := range of {
		s.a.StopFeeding()
	}
}

func (f *feeding) isShut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shut
}

// note notes whether a channel of c is fed, which has been retired.
func (f *feeding) note(c *core, fed bool) {
	f.mu.Lock()
	shut := f.shut
	switch {
	case !fed:
		delete(f.of, c)
	case !shut:
		if f.of == nil {
			f.of = map[*core]struct{}{}
		}
		f.of[c] = struct{}{}
	}
	f.mu.Unlock()
	if fed && shut {
		c.a.StopFeeding()
	}
}

// Feed runs f, which receives from the stream and hands what it has received to a
// reader of its own, such as the reader of a channel. f returns when done is closed:
// then this side reads no more, because it has called CloseReceive, Close or Abort,
// has closed the connection, or the stream's parent context has ended. A stream that
// the peer has ended is read on until then.
func (s *Stream) Feed(f func(done <-chan struct{})) {
	done := s.c.a.BeginFeed()
	defer s.c.a.EndFeed()
	f(done)
}
