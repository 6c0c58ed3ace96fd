package seastar

import (
	"sync"

	"github.com/sluicerpc/sluice/frame"
)

// idShift is where a connection's sequence number begins in its id; below it is
// the number of a shard, of which this server has one.
const idShift = 16

// A family knows which connections with calls are there, so that streams can
// belong to them. Its zero value is empty.
type family struct {
	mu       sync.Mutex
	sequence uint64
	parents  map[uint64]*parent
}

// A parent is a connection that is there.
type parent struct{ children uint64 }

// number gives out the next id.
func (f *family) number() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sequence++
	return f.sequence << idShift
}

// add lets streams belong to id.
func (f *family) add(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parents == nil {
		f.parents = map[uint64]*parent{}
	}
	f.parents[id] = &parent{}
}

func (f *family) remove(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.parents, id)
}

// endingShare is how many connections of streams there may be for each stream that
// is allowed: those of streams that are over for their client end a little later.
const endingShare = 4

// adopt makes one more stream belong to id, which has most at most, and those that
// are about to end.
func (f *family) adopt(id, most uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.parents[id]
	switch {
	case p == nil:
		return failf(frame.CodeProtocol, "a stream of connection %#x, which is not there", id)
	case p.children >= endingShare*most:
		return failf(frame.CodeRefused, "connection %#x has %d streams", id, p.children)
	}
	p.children++
	return nil
}

// leave takes an adopt back.
func (f *family) leave(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.parents[id]; p != nil {
		p.children--
	}
}
