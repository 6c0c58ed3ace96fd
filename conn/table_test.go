package conn

import (
	"testing"

	"pgregory.net/rapid"
)

// TestTableBehavesLikeAMap adds, finds and removes streams in any order. Numbers
// are odd and even, dense and far apart, so that places collide.
func TestTableBehavesLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table
		model, used := map[uint64]*Port{}, map[uint64]bool{}
		number := rapid.Custom(func(t *rapid.T) uint64 {
			if rapid.Bool().Draw(t, "dense") {
				return rapid.Uint64Range(1, 40).Draw(t, "id")
			}
			return 1 + 64*rapid.Uint64Range(0, 1<<24).Draw(t, "far")
		})
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id := number.Draw(t, "id")
				if used[id] {
					return // a connection never uses a number twice
				}
				used[id] = true
				p := &Port{}
				p.id.Store(id)
				tab.add(p)
				model[id] = p
			},
			"remove": func(t *rapid.T) {
				id := number.Draw(t, "id")
				p := model[id]
				over := rapid.Bool().Draw(t, "over")
				if p != nil {
					if over {
						p.marks.Or(peerEnded)
					}
				}
				tab.remove(id)
				delete(model, id)
				if p != nil && tab.peerEnded(id) != over {
					t.Fatalf("stream %d ended by its peer: %v, remembered %v", id, over, !over)
				}
			},
			"look": func(t *rapid.T) {
				id := number.Draw(t, "id")
				if tab.get(id) != model[id] {
					t.Fatalf("stream %d: %p, want %p", id, tab.get(id), model[id])
				}
				if p := tab.find(id); p != nil && p != model[id] {
					t.Fatalf("stream %d: found another", id)
				}
			},
			"": func(t *rapid.T) {
				if tab.n != len(model) {
					t.Fatalf("%d streams, want %d", tab.n, len(model))
				}
				all := tab.all()
				if len(all) != len(model) {
					t.Fatalf("all returns %d streams of %d", len(all), len(model))
				}
				for _, p := range all {
					if model[p.id.Load()] != p {
						t.Fatalf("all returns stream %d, which is not there", p.id.Load())
					}
				}
			},
		})
	})
}

// A table remembers the streams that ended last, not those long ago.
func TestTableForgetsStreamsThatEndedLongAgo(t *testing.T) {
	var tab table
	for id := uint64(1); id < 200; id += 2 {
		p := &Port{}
		p.id.Store(id)
		p.marks.Or(peerEnded)
		tab.add(p)
		tab.remove(id)
	}
	if !tab.peerEnded(199) || tab.peerEnded(1) {
		t.Errorf("the last: %v, the first: %v", tab.peerEnded(199), tab.peerEnded(1))
	}
	if n := len(*tab.places.Load()); n > 8 {
		t.Errorf("one stream at a time took %d places", n)
	}
}

func BenchmarkFind(b *testing.B) {
	var tab table
	for id := uint64(1); id < 2000; id += 2 {
		p := &Port{}
		p.id.Store(id)
		tab.add(p)
	}
	b.ReportAllocs()
	id := uint64(1)
	for b.Loop() {
		if tab.find(id) == nil && tab.get(id) == nil {
			b.Fatal(id)
		}
		id = (id + 2) % 2000
	}
}
