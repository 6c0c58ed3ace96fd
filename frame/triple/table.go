package triple

import (
	"sync"
	"sync/atomic"
)

// table finds a session's streams by number. A lookup takes no lock where the stream is in the
// place of its number, which is the rule: a client's numbers are dense.
type table struct {
	n      atomic.Int32 // of streams
	places atomic.Pointer[[]atomic.Pointer[stream]]

	mu     sync.Mutex
	others map[uint32]*stream // those whose place was in use
}

// place is the index of id in places. A client's numbers are odd.
func place(id uint32, size int) int { return int(id>>1) & (size - 1) }

// find returns the stream with number id, or nil.
func (t *table) find(id uint32) *stream {
	if ps := t.places.Load(); ps != nil {
		if st := (*ps)[place(id, len(*ps))].Load(); st != nil && st.id == id {
			return st
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.others[id]
}

// add enters a stream.
func (t *table) add(st *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := int(t.n.Add(1))
	ps := t.places.Load()
	if ps == nil || n > len(*ps) {
		ps = t.grow(n)
	}
	t.put(*ps, st)
}

func (t *table) put(ps []atomic.Pointer[stream], st *stream) {
	if ps[place(st.id, len(ps))].CompareAndSwap(nil, st) {
		return
	}
	if t.others == nil {
		t.others = map[uint32]*stream{}
	}
	t.others[st.id] = st
}

// grow makes places for at least n streams: a power of two, and eight at least.
func (t *table) grow(n int) *[]atomic.Pointer[stream] {
	size := 8
	for size < n {
		size *= 2
	}
	all := t.all()
	ps := make([]atomic.Pointer[stream], size)
	t.others = nil
	for _, st := range all {
		t.put(ps, st)
	}
	t.places.Store(&ps)
	return &ps
}

// remove takes a stream out.
func (t *table) remove(st *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ps := *t.places.Load()
	if !ps[place(st.id, len(ps))].CompareAndSwap(st, nil) {
		delete(t.others, st.id)
	}
	t.n.Add(-1)
}

// each calls f with every stream.
func (t *table) each(f func(*stream)) {
	t.mu.Lock()
	all := t.all()
	t.mu.Unlock()
	for _, st := range all {
		f(st)
	}
}

// all lists the streams. mu is held.
func (t *table) all() []*stream {
	var all []*stream
	if ps := t.places.Load(); ps != nil {
		for i := range *ps {
			if st := (*ps)[i].Load(); st != nil {
				all = append(all, st)
			}
		}
	}
	for _, st := range t.others {
		all = append(all, st)
	}
	return all
}
