package conn

import (
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// A Port is the actor.Link of its stream.

// ID implements actor.Link.
func (p *Port) ID() uint64 { return p.id.Load() }

// Forsake implements actor.Link.
func (p *Port) Forsake() bool {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.id.Load() != 0 {
		return false
	}
	p.retired = true
	return true
}

// Ready implements actor.Link.
func (p *Port) Ready(urgent bool) { p.c.schedule(p, urgent, true) }

// ReadySoon implements actor.Link.
func (p *Port) ReadySoon() { p.c.schedule(p, false, false) }

// Queued implements actor.Link.
func (p *Port) Queued(delta int) {
	c := p.c
	n := c.queued.Add(int64(delta))
	if n>>growthShift > (n-int64(delta))>>growthShift {
		c.cfg.Growth.add(1 << growthShift)
	}
	switch {
	case delta < 0 && n <= int64(c.lim.OutQueue)/2:
		c.wakeRoom()
	case delta > 0 && c.out.slots.n.Load() > 0 && !c.room():
		c.withdrawSlots()
	}
}

// Uncounted implements actor.Link: of all streams that is a quarter of OutQueue.
func (p *Port) Uncounted() int { return p.c.lim.OutQueue / 4 / max(int(p.c.streams.Load()), 1) }

// Beside implements actor.Link.
func (p *Port) Beside(delta int) {
	p.c.beside.Add(int64(delta))
	p.c.cfg.Growth.add(int64(delta))
}

// Bundle implements actor.Link.
func (p *Port) Bundle(on bool) {
	if on {
		p.marks.Or(takesBundles)
	} else {
		p.marks.And(^uint32(takesBundles))
	}
}

// Room implements actor.Link.
func (p *Port) Room(little bool) bool {
	if little {
		return p.c.roomForLittle()
	}
	return p.c.room()
}

// Unreported implements actor.Link.
func (p *Port) Unreported(delta int64) { p.c.unreported.Add(delta) }

// Crowded implements actor.Link.
func (p *Port) Crowded() bool { return p.c.unreported.Load() >= int64(p.c.caps.ConnUnreported) }

// AwaitRoom implements actor.Link.
func (p *Port) AwaitRoom() { p.c.awaitRoom(p) }

// AwaitFull implements actor.Link.
func (p *Port) AwaitFull() {
	c := p.c
	c.out.addSlot(p)
	c.mu.Lock()
	retired := p.retired
	c.mu.Unlock()
	switch {
	case retired: // before it was added: retire did not find it
		c.out.removeSlot(p)
	case !c.room(): // as of before it was added: withdrawSlots did not find it
		c.withdrawSlots()
	}
}

// Taken implements actor.Link.
func (p *Port) Taken(cost int) { p.c.returnCredit(cost) }

// Assemble implements actor.Link.
func (p *Port) Assemble(n int) bool {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.assembled+n > c.lim.AssemblyBudget {
		return false
	}
	c.assembled += n
	c.cfg.Growth.add(int64(n))
	return true
}

// Charge implements actor.Link.
func (p *Port) Charge(n int) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if !p.retired {
		p.charge(n)
	}
}

// Resize implements actor.Link.
func (p *Port) Resize(window, most int, taken uint64) (size int, near bool) {
	return p.c.resizeWindow(p, window, most, taken), p.c.trip.isNear()
}

// Shrink implements actor.Link.
func (p *Port) Shrink(from, to int) { p.c.shrinkWindow(p, from, to) }

// Pack implements actor.Link.
func (p *Port) Pack(m pool.Message, c pool.Compression) pool.Message { return p.c.pack(m, c) }

// Unpack implements actor.Link.
func (p *Port) Unpack(m pool.Message, most int) (pool.Message, error) {
	return p.c.unpack(p.id.Load(), m, most)
}

// Timers implements actor.Link.
func (p *Port) Timers() *timers.Queue { return p.c.cfg.Timers }

// Retire implements actor.Link.
func (p *Port) Retire() { p.c.retire(p) }
