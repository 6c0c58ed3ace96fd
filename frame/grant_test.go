package frame

import "testing"

func TestLeastGrant(t *testing.T) {
	for _, c := range []struct{ window, want int }{
		{64, 32}, {65, 33}, {8 << 10, 4 << 10}, {8388, 4 << 10}, {32 << 10, 4 << 10}, {64 << 10, 8 << 10}, {1 << 20, 128 << 10}, {1 << 30, 128 << 20},
	} {
		if got := LeastGrant(c.window); got != c.want {
			t.Errorf("of a window of %d: %d, want %d", c.window, got, c.want)
		}
	}
}
