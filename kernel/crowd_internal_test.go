package kernel

import "testing"

// The room that is made for a connection with few streams is enough for it, whatever the
// limit, and no more than it needs.
func TestRoomIsEnoughForFew(t *testing.T) {
	for most := 1; most <= 200_000; most += 1 + most/50 {
		room := roomForFew(most)
		if !mayOpen(fewStreams, 1, room, most) {
			t.Fatalf("of %d streams %d are left, and a connection with %d may open none", most, room, fewStreams)
		}
		if room > 1 && mayOpen(fewStreams, 1, room-1, most) {
			t.Fatalf("of %d streams %d are left, and room is made for a connection with %d, which may open one", most, room-1, fewStreams)
		}
	}
}
