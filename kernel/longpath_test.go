package kernel_test

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A longPath is a client and a server on a path, and what has arrived of each stream.
type longPath struct {
	t      *testing.T
	path   *testkit.Path
	srv    *kernel.Server
	client *kernel.Client
	rtt    time.Duration
	pause  func() // called by the reader for each message
	got    []atomic.Int64
	next   atomic.Int32
}

// onPath runs f with a client and a server.
func onPath(t *testing.T, rtt time.Duration, rate, streams int, limits kernel.Limits, f func(p *longPath)) {
	if testkit.RaceEnabled {
		t.Skip("gigabytes in a bubble, which the race detector makes take minutes")
	}
	synctest.Test(t, func(t *testing.T) {
		p := &longPath{t: t, rtt: rtt, path: testkit.NewPath(rtt, rate), got: make([]atomic.Int64, streams)}
		p.srv = must[*kernel.Server](t)(kernel.NewServer(&kernel.ServerOptions{Limits: limits}))
		p.srv.Handle("bulk", func(ctx context.Context, s *kernel.Stream) error {
			n := &p.got[p.next.Add(1)-1]
			for m, err := range s.All(ctx) {
				if err != nil {
					return err
				}
				n.Add(int64(m.Len()))
				m.Release()
				if p.pause != nil {
					p.pause()
				}
			}
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.srv.Serve(context.Background(), p.path) })
		p.client = must[*kernel.Client](t)(kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Limits: limits, Dial: p.path.Dial}))
		f(p)
		_ = p.client.Close()
		_ = p.srv.Close()
		wg.Wait()
		time.Sleep(time.Minute) // what is under way arrives
	})
}

// send sends messages on a new stream until ctx ends.
func (p *longPath) send(ctx context.Context, size int) {
	s := must[*kernel.Stream](p.t)(p.client.Open(context.Background(), "bulk", nil))
	go func() {
		for {
			m := pool.New(size)
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				s.Abort(0, "")
				return
			}
		}
	}()
}

// trips is how many round trips it takes until n bytes of a stream have arrived.
func (p *longPath) trips(i int, n int64) float64 {
	start := time.Now()
	for p.got[i].Load() < n {
		time.Sleep(p.rtt / 20)
	}
	return float64(time.Since(start)) / float64(p.rtt)
}

// rates is how many bytes of each stream arrive in a second, and of all.
func (p *longPath) rates() (each []float64, sum float64) {
	before := make([]int64, len(p.got))
	for i := range p.got {
		before[i] = p.got[i].Load()
	}
	const span = 1
	time.Sleep(span * time.Second)
	for i := range p.got {
		r := float64(p.got[i].Load()-before[i]) / span
		each, sum = append(each, r), sum+r
	}
	return each, sum
}

// server is the server's side of the connection.
func (p *longPath) server() kernel.ConnInfo { return p.srv.Conns()[0].Snapshot() }

const initialWindow = 16 << 20 // of a connection

// A request or reply that is longer than a stream's first window takes a round trip more, and no
// more than that, whether or not its stream is accepted by then.
func TestLongMessagesTakeOneMoreRoundTrip(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for _, proto := range []frame.Protocol{native.Protocol{}, triple.Protocol{}} {
		synctest.Test(t, func(t *testing.T) {
			path := testkit.NewPath(rtt, 0)
			srv := must[*kernel.Server](t)(kernel.NewServer(&kernel.ServerOptions{Protocols: []frame.Protocol{proto}}))
			srv.Handle("answers", func(ctx context.Context, s *kernel.Stream) error {
				m, err := s.Receive(ctx)
				if err != nil {
					return err
				}
				reply := pool.New(int(binary.LittleEndian.Uint32(m.Bytes())))
				m.Release()
				return s.Send(ctx, reply)
			})
			var wg sync.WaitGroup
			wg.Go(func() { _ = srv.Serve(context.Background(), path) })
			client := must[*kernel.Client](t)(kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Protocols: []frame.Protocol{proto}, Dial: path.Dial}))
			trips := func(request, reply int) float64 {
				m := pool.New(request)
				binary.LittleEndian.PutUint32(m.Bytes(), uint32(reply))
				start := time.Now()
				m, err := client.Call(context.Background(), "answers", m, nil)
				if err != nil {
					t.Error(err)
				}
				m.Release()
				return float64(time.Since(start)) / float64(rtt)
			}
			trips(4, 0)
			time.Sleep(time.Second) // the settings are known
			for _, c := range []struct {
				n        int
				up, down float64
			}{{8000, 1, 1}, {9000, 2, 2}, {60 << 10, 2, 2}, {240 << 10, 2, 2}} {
				if !proto.Caps().FixedWindow && c.n < 64<<10 {
					c.down = 1 // the open grants so much
				}
				if up, down := trips(c.n, 0), trips(4, c.n); up != c.up || down != c.down {
					t.Errorf("%s: a request of %d bytes takes %.1f round trips, a reply %.1f, want %.0f and %.0f", proto.Name(), c.n, up, down, c.up, c.down)
				}
			}
			_ = client.Close()
			_ = srv.Close()
			wg.Wait()
			time.Sleep(time.Minute) // what is under way arrives
		})
	}
}

// One stream uses a long path up to 200 MB/s with the defaults, and it does so soon.
func TestOneStreamFillsALongPath(t *testing.T) {
	for _, c := range []struct {
		rtt         time.Duration
		rate        int
		first, full float64 // round trips until 1 MiB have arrived, and 32 MiB more
	}{
		{50 * time.Millisecond, 200e6, 3, 11},
		{100 * time.Millisecond, 200e6, 3, 11},
		{100 * time.Millisecond, 20e6, 3.5, 30},
	} {
		onPath(t, c.rtt, c.rate, 1, kernel.Limits{}, func(p *longPath) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			p.send(ctx, 16<<10)
			if first := p.trips(0, 1<<20); first > c.first {
				t.Errorf("%v: the first MiB takes %.1f round trips", c.rtt, first)
			}
			if full := p.trips(0, 33<<20); full > c.full {
				t.Errorf("%v: the next 32 MiB take %.1f round trips", c.rtt, full)
			}
			time.Sleep(time.Second)
			for range 3 { // what waits on the path does not make it look longer and longer
				if _, sum := p.rates(); sum < 0.95*float64(c.rate) {
					t.Errorf("%v: %.1f MB/s of %d", c.rtt, sum/1e6, c.rate/1e6)
				}
				trip, carried := p.server(), float64(c.rate)*c.rtt.Seconds()
				if carried *= 8; trip.ExtraWindows > int(max(carried, 2<<20)) {
					t.Errorf("%v: windows of %d bytes, the path holds %.0f", c.rtt, trip.ExtraWindows, carried/8)
				}
			}
		})
	}
}

// The first MiB takes two round trips more than the half that every byte takes, whatever the
// messages' sizes are. Without a limit of the network's a window arrives all at once, so that it
// grows once in a round trip.
func TestAStreamStartsSoonOnALongPath(t *testing.T) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, rate := range []int{0, 200e6} {
			onPath(t, 50*time.Millisecond, rate, 1, kernel.Limits{}, func(p *longPath) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				p.send(ctx, size)
				if first := p.trips(0, 1<<20); first > 2.75 {
					t.Errorf("messages of %d bytes, %d MB/s: the first MiB takes %.2f round trips", size, rate/1e6, first)
				}
			})
		}
	}
}

func TestStreamsShareALongPath(t *testing.T) {
	const rate, n = 200e6, 8
	onPath(t, 100*time.Millisecond, rate, n, kernel.Limits{}, func(p *longPath) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range n {
			p.send(ctx, 16<<10)
		}
		time.Sleep(3 * time.Second)
		each, sum := p.rates()
		if sum < 0.95*rate {
			t.Errorf("%.1f MB/s", sum/1e6)
		}
		for i, r := range each {
			if r < 0.8*sum/n || r > 1.25*sum/n {
				t.Errorf("stream %d has %.1f of %.1f MB/s", i, r/1e6, sum/1e6)
			}
		}
	})
}

// A path that becomes longer is found out.
func TestAPathBecomesLonger(t *testing.T) {
	onPath(t, 2*time.Millisecond, 50e6, 1, kernel.Limits{}, func(p *longPath) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		p.send(ctx, 16<<10)
		time.Sleep(2 * time.Second)
		const little = 4 << 20 // what waits on the path makes it look longer
		if i := p.server(); i.RecvWindow != initialWindow || i.ExtraWindows > little {
			t.Errorf("on a short path windows have %d bytes, the connection's %d", i.ExtraWindows, i.RecvWindow)
		}
		p.path.SetRoundTrip(100 * time.Millisecond)
		time.Sleep(8 * time.Second)
		if _, sum := p.rates(); sum < 40e6 {
			t.Errorf("%.1f MB/s on a path that has become longer", sum/1e6)
		}
	})
}

// A reader that has become slow has a small window after a while, and what its sender has in
// flight is less too. When it is quick again it has what it had.
func TestAStalledReaderLosesItsWindow(t *testing.T) {
	onPath(t, 100*time.Millisecond, 200e6, 1, kernel.Limits{}, func(p *longPath) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var slow atomic.Bool
		p.pause = func() {
			if slow.Load() {
				time.Sleep(16 * time.Millisecond) // 1 MB/s
			}
		}
		p.send(ctx, 16<<10)
		time.Sleep(3 * time.Second)
		if i := p.server(); i.ExtraWindows < 20<<20 {
			t.Errorf("the window is %d bytes", i.ExtraWindows)
		}
		slow.Store(true)
		time.Sleep(2 * time.Minute)
		if i := p.server(); i.ExtraWindows > 2<<20 || i.Unread > 4<<20 || i.RecvWindow != initialWindow {
			t.Errorf("a slow reader's window is %d bytes, %d unread, the connection's %d", i.ExtraWindows, i.Unread, i.RecvWindow)
		}
		slow.Store(false)
		time.Sleep(5 * time.Second)
		if _, sum := p.rates(); sum < 190e6 {
			t.Errorf("%.1f MB/s when it reads again", sum/1e6)
		}
	})
}

// MaxWindow is a ceiling, and so is a share of Memory: with it the windows of a connection are
// no larger than ConnWindow.
func TestWindowsHaveACeiling(t *testing.T) {
	for name, c := range map[string]struct {
		limits    kernel.Limits
		low, high float64
		window    int
	}{
		"MaxWindow":    {kernel.Limits{MaxWindow: 4 << 20}, 35e6, 45e6, initialWindow},
		"StreamWindow": {kernel.Limits{MaxWindow: 1 << 20}, 9e6, 11e6, initialWindow},
		"Memory":       {kernel.Limits{Memory: 4 << 20}, 60e6, 90e6, initialWindow + 1<<20},
		"none":         {kernel.Limits{}, 190e6, 201e6, 64 << 20},
	} {
		onPath(t, 100*time.Millisecond, 200e6, 1, c.limits, func(p *longPath) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			p.send(ctx, 16<<10)
			time.Sleep(2 * time.Second)
			if _, sum := p.rates(); sum < c.low || sum > c.high {
				t.Errorf("%s: %.1f MB/s", name, sum/1e6)
			}
			if w := p.server().RecvWindow; w > int64(c.window) {
				t.Errorf("%s: the connection's window is %d", name, w)
			}
		})
	}
}
