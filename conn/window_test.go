package conn

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
)

// Streams that nobody has read yet begin with 64 KiB each until they have a quarter of the
// connection's window, and then with less, down to the share of each in half of it. Where one
// was read, or is over, the next has more again.
func TestFreshStreamsShareAQuarter(t *testing.T) {
	s := newStage(Limits{}, 1<<30)
	c := s.c
	initial := InitialCredit(c.lim)
	quarter := c.firstWindow / 4
	var ports []*Port
	var windows []int
	sum := 0
	open := func() int {
		k := &fakeStream{}
		c.PreparePeer(&k.Port, k, false)
		c.OpenPeer(&k.Port, uint64(2*len(ports)+2), 0)
		w, most := k.Port.FirstWindow(0, 0)
		if most != c.lim.MaxWindow {
			t.Fatalf("it may grow to %d", most)
		}
		ports, windows, sum = append(ports, &k.Port), append(windows, w), sum+w-initial
		return w
	}
	for i := range c.lim.MaxStreams {
		w := open()
		if i < 64 && w != freshCredit {
			t.Fatalf("stream %d begins with %d bytes", i, w)
		}
		if i > 0 && w > windows[i-1] || w < initial {
			t.Fatalf("stream %d begins with %d bytes, the one before with %d", i, w, windows[i-1])
		}
	}
	if c.freshWindows != sum || c.extraWindows != sum || sum > quarter || sum < quarter*9/10 {
		t.Errorf("fresh streams have %d bytes, %d are counted, a quarter is %d", sum, c.freshWindows, quarter)
	}
	if w := windows[len(windows)-1]; w != initial {
		t.Errorf("the last one begins with %d bytes", w)
	}
	_, _ = ports[0].Resize(windows[0], c.lim.MaxWindow, 100)
	if c.freshWindows != sum {
		t.Error("100 bytes are enough")
	}
	windows[0], _ = ports[0].Resize(windows[0], c.lim.MaxWindow, 4<<10)
	c.retire(ports[1])
	ports[1].Shrink(windows[1], 0) // it is back already
	if want := sum - 2*(freshCredit-initial); c.freshWindows != want {
		t.Errorf("one was read and one is over, and fresh streams have %d bytes, want %d", c.freshWindows, want)
	}
	if w := open(); w <= initial {
		t.Errorf("then the next begins with %d bytes", w)
	}
	for i, p := range ports {
		if i != 1 {
			c.retire(p)
		}
	}
	if c.freshWindows != 0 || c.extraWindows != 0 {
		t.Errorf("when all are over, %d and %d are counted", c.freshWindows, c.extraWindows)
	}
}

func TestFirstWindow(t *testing.T) {
	for name, c := range map[string]struct {
		lim          Limits
		caps         frame.Caps
		want, limit  int
		window, most int
	}{
		"defaults":                  {window: 64 << 10, most: 32 << 20},
		"the peer asks for less":    {limit: 20_000, window: 20_000, most: 20_000},
		"for very little":           {limit: 100, window: 100, most: 100},
		"the program does":          {want: 1000, window: 1000, most: 1000},
		"for more":                  {want: 1 << 20, window: 1 << 20, most: 1 << 20},
		"both":                      {want: 1 << 20, limit: 20_000, window: 20_000, most: 20_000},
		"small windows":             {lim: Limits{StreamWindow: 10_000}, window: 10_000, most: 32 << 20},
		"what was announced stays":  {caps: frame.Caps{FixedWindow: true}, window: 8388, most: 32 << 20},
		"also where less is wanted": {caps: frame.Caps{FixedWindow: true}, want: 1000, window: 8388, most: 8388},
	} {
		s := newStage(c.lim, 1<<30)
		s.c.caps.FixedWindow = c.caps.FixedWindow
		k := &fakeStream{}
		s.c.PreparePeer(&k.Port, k, false)
		s.c.OpenPeer(&k.Port, 2, 0)
		window, most := k.Port.FirstWindow(c.want, c.limit)
		if window != c.window || most != c.most {
			t.Errorf("%s: %d, at most %d; want %d, at most %d", name, window, most, c.window, c.most)
		}
		s.c.retire(&k.Port)
		if s.c.extraWindows != 0 || s.c.freshWindows != 0 {
			t.Errorf("%s: %d and %d are left", name, s.c.extraWindows, s.c.freshWindows)
		}
	}
}
