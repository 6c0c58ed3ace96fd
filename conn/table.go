package conn

import "sync/atomic"

// table finds a connection's streams by number. A lookup takes no lock where the stream
// is in the place of its number, which is the rule because numbers are dense. Everything
// else is done under the connection's lock.
type table struct {
	places     atomic.Pointer[[]atomic.Pointer[Port]]
	others     map[uint64]*Port // streams whose place was in use
	n          int
	endedEarly uint64           // streams that ended before the peer had ended its half
	recent     *[32]endedStream // the last streams that ended; nil: none has
	next       int
}

// endedStream remembers a stream that ended, for frames that arrive later.
type endedStream struct {
	id     uint64
	byPeer bool // the peer had ended its half
}

// place is the index of id in places.
func place(id uint64, size int) int { return int(id) & (size - 1) }

// find looks id up without the lock. If it returns nil, get may still find the stream.
func (t *table) find(id uint64) *Port {
	s := t.places.Load()
	if s == nil {
		return nil
	}
	if p := (*s)[place(id, len(*s))].Load(); p != nil && p.id.Load() == id {
		return p
	}
	return nil
}

// get looks id up under the lock.
func (t *table) get(id uint64) *Port {
	if p := t.find(id); p != nil {
		return p
	}
	return t.others[id]
}

func (t *table) add(p *Port) {
	s := t.places.Load()
	if s == nil || t.n >= len(*s)/2 {
		s = t.grow(s)
	}
	t.n++
	t.put(s, p)
}

func (t *table) put(s *[]atomic.Pointer[Port], p *Port) {
	id := p.id.Load()
	if (*s)[place(id, len(*s))].CompareAndSwap(nil, p) {
		return
	}
	if t.others == nil {
		t.others = map[uint64]*Port{}
	}
	t.others[id] = p
}

func (t *table) grow(old *[]atomic.Pointer[Port]) *[]atomic.Pointer[Port] {
	size := 4
	if old != nil {
		size = 2 * len(*old)
	}
	s := make([]atomic.Pointer[Port], size)
	ports := t.all()
	t.others = nil
	for _, p := range ports {
		t.put(&s, p)
	}
	t.places.Store(&s)
	return &s
}

// remove takes id out, and remembers its end.
func (t *table) remove(id uint64) {
	p := t.get(id)
	if p == nil {
		return
	}
	s := t.places.Load()
	if !(*s)[place(id, len(*s))].CompareAndSwap(p, nil) {
		delete(t.others, id)
	}
	t.n--
	over := p.has(peerEnded)
	if !over {
		t.endedEarly++
	}
	if t.recent == nil {
		t.recent = new([32]endedStream)
	}
	t.recent[t.next] = endedStream{id, over}
	t.next = (t.next + 1) % len(t.recent)
}

// all returns every stream.
func (t *table) all() []*Port {
	ps := make([]*Port, 0, t.n)
	if s := t.places.Load(); s != nil {
		for i := range *s {
			if p := (*s)[i].Load(); p != nil {
				ps = append(ps, p)
			}
		}
	}
	for _, p := range t.others {
		ps = append(ps, p)
	}
	return ps
}

// peerEnded reports whether the peer had ended stream id itself, as far as that is still
// remembered.
func (t *table) peerEnded(id uint64) bool {
	if t.recent == nil {
		return false
	}
	for _, g := range t.recent {
		if g.id == id {
			return g.byPeer
		}
	}
	return false
}
