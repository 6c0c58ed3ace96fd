package seastar

import "sync"

// A budget is the memory that the calls of all connections may take together.
// Those that find too little wait in line. The zero value has no limit.
type budget struct {
	mu   sync.Mutex
	max  int64 // 0: no limit
	used int64
	line []*ticket
}

// A ticket is a place in the line.
type ticket struct {
	cost  int64
	ready chan struct{} // closed when the cost was taken
}

// take takes cost, or returns a ticket for it.
func (b *budget) take(cost int64) *ticket {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.line) == 0 && b.used+cost <= b.max {
		b.used += cost
		return nil
	}
	t := &ticket{cost, make(chan struct{})}
	b.line = append(b.line, t)
	return t
}

// give returns cost.
func (b *budget) give(cost int64) {
	if cost == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= cost
	b.serve()
}

// serve lets in those at the head of the line that there is room for.
func (b *budget) serve() {
	for len(b.line) > 0 && b.used+b.line[0].cost <= b.max {
		t := b.line[0]
		b.line[0], b.line = nil, b.line[1:]
		b.used += t.cost
		close(t.ready)
	}
}

// leave gives a place in the line up, or what it has brought.
func (b *budget) leave(t *ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.line {
		if o == t {
			b.line = append(b.line[:i], b.line[i+1:]...)
			b.serve()
			return
		}
	}
	b.used -= t.cost
	b.serve()
}
