package actor

import "sync"

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
	wake          func() // called last
}

// unlock takes what is in the post, frees the stream's lock and then calls link.
func (p *post) unlock(mu *sync.Mutex, link Link) {
	q := *p
	*p = post{}
	mu.Unlock()
	if q.queued != 0 {
		link.Queued(int(q.queued))
	}
	if q.taken != 0 {
		link.Taken(int(q.taken))
	}
	if q.urgent {
		link.Ready(true)
	}
	switch {
	case q.ready && q.soon:
		link.ReadySoon()
	case q.ready:
		link.Ready(false)
	}
	if q.room {
		link.AwaitRoom()
	}
	if q.full {
		link.AwaitFull()
	}
	if q.retire {
		link.Retire()
	}
	if q.feeding {
		link.FeedingChanged()
	}
	if q.wake != nil {
		q.wake()
	}
}
