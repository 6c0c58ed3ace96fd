package actor

// post is what a step leaves to do once the lock is free: any says whether there
// is something.
type post struct {
	any           bool
	ready, urgent bool
	soon          bool // ready, but not on this goroutine's stack
	room, retire  bool
	slot          bool // one is offered, and of no use without room
	feeding           bool
	taken, queued int32
	from, to      int32 // the window has shrunk
	wake          func()
}

// later is the post, about to be added to.
func (s *Stream) later() *post {
	s.post.any = true
	return &s.post
}

// unlock frees the lock and then does what was left to do.
func (s *Stream) unlock() {
	if !s.post.any {
		s.mu.Unlock()
		return
	}
	s.unlockAndPost()
}

func (s *Stream) unlockAndPost() {
	p := s.post
	s.post = post{}
	s.mu.Unlock()
	if p.queued != 0 {
		s.link.Queued(int(p.queued))
	}
	if p.taken != 0 {
		s.link.Taken(int(p.taken))
	}
	if p.urgent {
		s.link.Ready(true)
	}
	switch {
	case p.ready && p.soon:
		s.link.ReadySoon()
	case p.ready:
		s.link.Ready(false)
	}
	if p.room {
		s.link.AwaitRoom()
	}
	if p.slot {
		s.link.AwaitFull()
	}
	if p.from != p.to {
		s.link.Shrink(int(p.from), int(p.to))
	}
	if p.retire {
		s.link.Retire()
	}
	if p.feeding {
		s.link.FeedingChanged()
	}
	if p.wake != nil {
		p.wake()
	}
}
