package seastar

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
)

// idShift is where the part of an ID begins that is drawn; below it is the number of a
// shard, of which this server has one.
const idShift = 16

// parents is the open connections with calls, which can be parents of streams. Its zero
// value is empty.
type parents struct {
	mu   sync.Mutex
	ids  map[uint64]struct{}
	draw func() uint64 // what IDs are made of; nil is random
}

// nextID returns an unused ID. It can't be guessed: who knows the ID of a connection can ask
// for streams that belong to it.
func (p *parents) nextID() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		id := p.drawn() << idShift
		if _, used := p.ids[id]; !used && id != 0 {
			return id
		}
	}
}

func (p *parents) drawn() uint64 {
	if p.draw != nil {
		return p.draw()
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.LittleEndian.Uint64(b[:])
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
