package triple

import (
	"testing"

	"pgregory.net/rapid"
)

// The table finds what was added and not removed, whatever the numbers are.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tab table
		want := map[uint32]*stream{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := rapid.Uint32Range(0, 600).Draw(t, "id")
			if st := want[id]; st != nil {
				delete(want, id)
				tab.remove(st)
			} else {
				st := &stream{id: id}
				want[id] = st
				tab.add(st)
			}
			if n := int(tab.n.Load()); n != len(want) {
				t.Fatalf("%d streams, want %d", n, len(want))
			}
			for id := range uint32(601) {
				if got := tab.find(id); got != want[id] {
					t.Fatalf("stream %d: %v, want %v", id, got, want[id])
				}
			}
			n := 0
			tab.each(func(st *stream) {
				if n++; want[st.id] != st {
					t.Fatalf("stream %d is listed", st.id)
				}
			})
			if n != len(want) {
				t.Fatalf("%d streams listed, want %d", n, len(want))
			}
		}
	})
}
