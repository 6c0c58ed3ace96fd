package pool

import (
	"sync"
	"testing"
)

func TestSmallMessagesShareABlock(t *testing.T) {
	noneLost(t)
	var a Arena
	first, second := a.New(64), a.New(64)
	if first.s.block != second.s.block {
		t.Error("two small messages in a row have blocks of their own")
	}
	if large := a.New(smallMax + 1); large.s.block == first.s.block {
		t.Error("a large message shares a block")
	} else {
		large.Release()
	}
	if third := a.New(1); third.s.block != first.s.block {
		t.Error("a large message in between ended the block")
	} else {
		third.Release()
	}
	first.Release()
	second.Release()
	a.retire()
}

func TestABlockEndsWhenItIsFull(t *testing.T) {
	noneLost(t)
	for _, c := range []struct {
		name       string
		size, want int
	}{
		{"by bytes", smallMax, blockSize / smallMax},
		{"by number", 0, blockSpans},
		{"by number of 64 bytes", 64, min(blockSpans, blockSize/64)},
	} {
		var a Arena
		var ms []Message
		for len(ms) == 0 || ms[len(ms)-1].s.block == ms[0].s.block {
			ms = append(ms, a.New(c.size))
		}
		if got := len(ms) - 1; got != c.want {
			t.Errorf("%s: a block held %d messages of %d bytes, want %d", c.name, got, c.size, c.want)
		}
		for _, m := range ms {
			m.Release()
		}
		a.retire()
	}
}

func TestMessagesOfABlockDoNotOverlap(t *testing.T) {
	noneLost(t)
	var a Arena
	var ms []Message
	for i := range 1000 {
		m := a.New(i % 300)
		for j := range m.Bytes() {
			m.Bytes()[j] = byte(i)
		}
		ms = append(ms, m)
	}
	for i, m := range ms {
		for _, c := range m.Bytes() {
			if c != byte(i) {
				t.Fatalf("message %d was written over", i)
			}
		}
		m.Release()
	}
	a.retire()
}

// A block may go back only when the arena has let go of it and every message in
// it was released, whatever the order.
func TestABlockLivesAsLongAsAnyOfItsMessages(t *testing.T) {
	noneLost(t)
	for _, retireFirst := range []bool{false, true} {
		var a Arena
		var ms []Message
		for range 10 {
			ms = append(ms, a.New(64))
		}
		b := ms[0].s.block
		if retireFirst {
			a.retire()
		}
		for i, m := range ms {
			if b.refs.Load() <= 0 {
				t.Fatalf("retired first %v: free with %d messages out", retireFirst, len(ms)-i)
			}
			m.Release()
		}
		if !retireFirst {
			if b.refs.Load() == 0 {
				t.Error("a block was given back that the arena still carves")
			}
			a.retire()
		}
		if n := b.refs.Load(); n != 0 && checked {
			t.Errorf("retired first %v: %d references are left", retireFirst, n)
		}
	}
}

func TestLargeMessagesHaveTheSmallestClassThatHoldsThem(t *testing.T) {
	noneLost(t)
	for n, want := range map[int]int{
		smallMax + 1: 8 << 10, 8 << 10: 8 << 10, 8<<10 + 1: 16 << 10, 64 << 10: 64 << 10,
		1<<20 - 1: 1 << 20, 1 << 24: 1 << 24,
	} {
		m := New(n)
		if got := len(m.s.block.data); got != want {
			t.Errorf("%d bytes: %d reserved, want %d", n, got, want)
		}
		m.Release()
	}
	m := New(1<<24 + 1)
	if m.s.block.class != unpooled || len(m.s.block.data) != 1<<24+1 {
		t.Errorf("beyond the classes: class %d, %d bytes", m.s.block.class, len(m.s.block.data))
	}
	m.Release()
}

func TestOneGoroutineMayReleaseWhatAnotherCarves(t *testing.T) {
	noneLost(t)
	ms := make(chan Message, 64)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for m := range ms {
				p := m.Bytes()
				for _, c := range p {
					if c != p[0] {
						t.Error("bytes changed under their holder")
					}
				}
				m.Release()
			}
		}()
	}
	for i := range 20_000 {
		a := GetArena()
		m := a.New(1 + i%200)
		for j := range m.Bytes() {
			m.Bytes()[j] = byte(i)
		}
		PutArena(a)
		ms <- m
	}
	close(ms)
	wg.Wait()
}

// A buffer is used again whatever most writes are like: here one of fifty is large.
func TestScratchIsUsedAgain(t *testing.T) {
	if !recycle {
		t.Skip("checked builds don't use memory again")
	}
	small, large := make([]byte, 12), make([]byte, 320<<10)
	writes := func() {
		for i := range 1000 {
			s := GetScratch()
			if i%50 == 0 {
				s.B = append(s.B, large...)
			}
			s.B = append(s.B, small...)
			PutScratch(s)
		}
	}
	for range 100 {
		writes()
	}
	if n := testing.AllocsPerRun(100, writes); n > 5 {
		t.Errorf("%v allocations in 1,000 writes", n)
	}
}
