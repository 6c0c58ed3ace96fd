package actor

// A post is what a step under the lock leaves to be done once the lock is free: calls
// of the link, which may take locks of the connection or write.
type post struct {
	any           bool // whether there is anything to do
	ready, urgent bool // ask for data's turn; for control frames'
	soon          bool // with ready: don't write on this goroutine's stack
	room          bool // AwaitRoom
	full          bool // AwaitFull
	retire        bool
	feeding       bool // FeedingChanged
	taken, queued int32
	from, to      int32  // the window has shrunk
	wake          func() // called last
}

// do calls link.
func (p *post) do(link Link) {
	if p.queued != 0 {
		link.Queued(int(p.queued))
	}
	if p.taken != 0 {
		link.Taken(int(p.taken))
	}
	if p.urgent {
		link.Ready(true)
	}
	switch {
	case p.ready && p.soon:
		link.ReadySoon()
	case p.ready:
		link.Ready(false)
	}
	if p.room {
		link.AwaitRoom()
	}
	if p.full {
		link.AwaitFull()
	}
	if p.from != p.to {
		link.Shrink(int(p.from), int(p.to))
	}
	if p.retire {
		link.Retire()
	}
	if p.feeding {
		link.FeedingChanged()
	}
	if p.wake != nil {
		p.wake()
	}
}
