package seastar

import "sync"

// idShift is where a connection's sequence number begins in its id; below it is
// the number of a shard, of which this server has one.
const idShift = 16

// parents is the open connections with calls, which can be parents of streams. Its zero
// value is empty.
type parents struct {
	mu       sync.Mutex
	sequence uint64
	ids      map[uint64]struct{}
}

// nextID returns the next unused ID.
func (p *parents) nextID() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sequence++
	return p.sequence << idShift
}

// add allows streams whose parent is id.
func (p *parents) add(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = map[uint64]struct{}{}
	}
	p.ids[id] = struct{}{}
}

func (p *parents) remove(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ids, id)
}

// has tells whether streams can have the parent id.
func (p *parents) has(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.ids[id]
	return ok
}
