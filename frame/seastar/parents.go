package seastar

import "sync"

// idShift is where a connection's sequence number begins in its id; below it is
// the number of a shard, of which this server has one.
const idShift = 16

// parents is the connections with calls that are there: streams can belong to them. Its
// zero value is empty.
type parents struct {
	mu       sync.Mutex
	sequence uint64
	ids      map[uint64]struct{}
}

// number gives out the next id.
func (p *parents) number() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sequence++
	return p.sequence << idShift
}

// add lets streams belong to id.
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

// has tells whether streams can belong to id.
func (p *parents) has(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.ids[id]
	return ok
}
