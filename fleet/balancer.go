package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// A Balancer says how calls and streams are spread over a fleet's endpoints.
type Balancer uint8

const (
	// RoundRobin takes one endpoint after the other.
	RoundRobin Balancer = iota
	// Weighted gives each endpoint its share by Endpoint.Weight, without bursts.
	Weighted
	// LeastStreams draws two at random and takes the one that has fewer streams and calls of
	// this client open, for its weight.
	LeastStreams
	// Ketama has equal keys of Options.Key go to the same endpoint, whichever client has them:
	// keys and endpoints are on a ring (consistent hashing), where each endpoint has up to 160
	// points for its weight, fewer beyond 800 endpoints, and a key goes to the next point. Where
	// an endpoint comes or goes the keys next to it alone go elsewhere.
	Ketama
)

// String returns the balancer's name.
func (b Balancer) String() string {
	switch b {
	case RoundRobin:
		return "round robin"
	case Weighted:
		return "weighted"
	case LeastStreams:
		return "least streams"
	case Ketama:
		return "ketama"
	}
	return fmt.Sprintf("balancer %d", uint8(b))
}

// A KeyFunc says which key of Ketama a call or an open has. md is its metadata, which is not to
// be changed.
type KeyFunc func(ctx context.Context, method string, md metadata.MD) string

var errKey = errors.New("Options.Key panicked")

// check completes the options, and returns what is wrong with them.
func (o *Options) check() error {
	o.Drain = cmp.Or(o.Drain, defaultDrain)
	o.Failures = cmp.Or(o.Failures, defaultFailures)
	o.MostEjected = cmp.Or(o.MostEjected, defaultMostEjected)
	switch {
	case o.Drain < 0 && o.Drain != kernel.Unlimited:
		return fmt.Errorf("%w: Drain is %v", kernel.ErrLimits, o.Drain)
	case o.Balancer > Ketama:
		return fmt.Errorf("%w: Balancer is %d", kernel.ErrLimits, o.Balancer)
	case o.Subset < 0:
		return fmt.Errorf("%w: Subset is %d", kernel.ErrLimits, o.Subset)
	case !(o.MostEjected > 0 && o.MostEjected <= 1): // NaN is no part
		return fmt.Errorf("%w: MostEjected is %v", kernel.ErrLimits, o.MostEjected)
	case o.Failures < 0 && o.Failures != kernel.Unlimited:
		return fmt.Errorf("%w: Failures is %d", kernel.ErrLimits, o.Failures)
	case o.Balancer == Ketama && (o.Key == nil || o.Subset > 0):
		return fmt.Errorf("%w: Ketama needs a Key, and no Subset", kernel.ErrLimits)
	}
	return nil
}

// point is where on the ring a call's key is.
func (c *Client) point(ctx context.Context, method string, md metadata.MD) (at uint64, err error) {
	if c.opts.Balancer != Ketama {
		return 0, nil
	}
	err = fmt.Errorf("sluice: fleet %s: %w", address(c.target), errKey)
	defer func() {
		if err != nil {
			_ = recover()
		}
	}()
	at = hash(c.opts.Key(ctx, method, md), 0)
	return at, nil
}

// pick returns a member that is connected, and holds it. It takes no lock and allocates nothing
// where all are connected. Whose turn it is and who is not, connects meanwhile. If m is nil none
// is connected, or the call is to wait for owner, which is not.
func (c *Client) pick(at uint64) (m, owner *member) {
	t := c.table.Load()
	if t == nil {
		return nil, nil
	}
	var idle *member
	switch c.opts.Balancer {
	case Ketama:
		if m, idle = t.onRing(c, at); m == nil && idle != nil && idle.next.Load() == 0 {
			return nil, idle
		}
	case LeastStreams:
		m, idle = t.lessOfTwo()
	default:
		m, idle = t.inTurn(c)
	}
	if m == nil {
		m = t.any(c)
	}
	if m != nil && idle != nil {
		idle.wake()
	}
	return m, nil
}

// mostDraws is how many endpoints a pick draws before it takes any.
const mostDraws = 8

// inTurn draws until a member is ready, which it holds. idle is one that is not.
func (t *table) inTurn(c *Client) (m, idle *member) {
	for range mostDraws {
		turn := c.turns.Add(1)
		if c.opts.Balancer == Weighted {
			m = t.byWeight(turn)
		} else {
			m = t.members[turn%uint64(len(t.members))]
		}
		switch {
		case !m.connected():
			idle = m
		case !m.isEjected() && m.hold():
			return m, idle
		}
	}
	return nil, idle
}

// byWeight spreads turns over the endpoints' shares. The multiples of the golden ratio, modulo
// 1, are even however many one takes, so shares are too, and no endpoint has two turns while
// another one with the same weight has none.
func (t *table) byWeight(turn uint64) *member {
	const golden = 0x9E3779B97F4A7C15 // 2^64 of it
	at, _ := bits.Mul64(turn*golden, t.sums[len(t.sums)-1])
	i, _ := slices.BinarySearch(t.sums, at+1)
	return t.members[i]
}

// lessOfTwo draws two members until one is ready, and holds that which has less to do.
func (t *table) lessOfTwo() (m, idle *member) {
	n := len(t.members)
	for range mostDraws {
		i, j := rand.N(n), rand.N(max(n-1, 1))
		if j >= i && n > 1 {
			j++ // another one
		}
		a, b := t.members[i], t.members[j]
		first, second := a.ready(), b.ready()
		switch {
		case !first && !second:
			idle = a
			continue
		case !first:
			a, idle = b, a
		case !second:
			idle = b
		default:
			x, y := a.load()*t.weights[j], b.load()*t.weights[i]
			if x > y || x == y && rand.N(t.weights[i]+t.weights[j]) >= t.weights[i] {
				a = b
			}
		}
		if a.hold() {
			return a, idle
		}
	}
	return nil, idle
}

// load is how many calls and streams of this client a member has open. Calls count where each
// has a connection of its own, too.
func (m *member) load() uint64 {
	n := max(m.users.Load(), 0)
	if k := m.conn.Load(); k != nil {
		n = max(n, int64(k.Streams()))
	}
	return uint64(n)
}

const (
	pointsOfOne  = 160     // of an average weight
	pointsOfAll  = 1 << 17 // at most, or
	pointsOfMany = 8       // times the endpoints
	indexBits    = 20      // of a point, below its place on the ring
)

// makeRing makes the points of the endpoints, by their places.
func (t *table) makeRing() {
	n := uint64(len(t.members))
	all := t.sums[n-1]
	points := min(pointsOfOne*n, max(pointsOfAll, pointsOfMany*n))
	t.ring = make([]uint64, 0, points+n)
	for i, m := range t.members {
		h := fold(m.key.addr)
		for k := range max(1, points*t.weights[i]/all) {
			t.ring = append(t.ring, mix(h, k+1)>>indexBits<<indexBits|uint64(i))
		}
	}
	t.ring = sortPoints(t.ring)
}

// sortPoints sorts the points of a ring, which are spread evenly: by their first bits at once, and
// then the few that have the same. With slices.Sort alone a change of 10,000 endpoints took 58 ms
// in place of 11 (BenchmarkChange, 2 virtual CPUs).
func sortPoints(ring []uint64) []uint64 {
	const bits = 16
	ends := make([]int32, 1<<bits+1) // of the points with the same first bits, once they are placed
	for _, p := range ring {
		ends[p>>(64-bits)+1]++
	}
	for i := range 1 << bits {
		ends[i+1] += ends[i]
	}
	sorted := make([]uint64, len(ring))
	for _, p := range ring {
		at := &ends[p>>(64-bits)]
		sorted[*at] = p
		*at++
	}
	from := int32(0)
	for _, to := range ends[:1<<bits] {
		if to-from > 1 {
			slices.Sort(sorted[from:to])
		}
		from = to
	}
	return sorted
}

// onRing returns the first member that is ready, and holds it, from a place on. A call waits for
// one that has not failed to connect, and no member is returned then; one that has failed is
// idle. Where all have failed or are ejected, the call goes to any that is connected.
func (t *table) onRing(c *Client, at uint64) (m, idle *member) {
	from, _ := slices.BinarySearch(t.ring, at)
	for i := range t.ring {
		m = t.members[t.ring[(from+i)%len(t.ring)]&(1<<indexBits-1)]
		switch {
		case m.ready() && m.hold():
			return m, idle
		case m.connected():
		case m.next.Load() == 0:
			return nil, m
		case idle == nil:
			idle = m
		}
	}
	return t.any(c), idle
}

// hash is the same in all processes: FNV-1a, and a finalizer that makes all bits depend on all.
func hash(text string, n uint64) uint64 { return mix(fold(text), n) }

func fold(text string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 0x100000001b3
	}
	return h
}

func mix(h, n uint64) uint64 {
	h += n * 0x9E3779B97F4A7C15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// any returns any member that is ready, or else any that is connected, and holds it; nil if there
// is none.
func (t *table) any(c *Client) (m *member) {
	from := int(c.turns.Load() % uint64(len(t.members)))
	var ejected *member
	for i := range t.members {
		switch m := t.members[(from+i)%len(t.members)]; {
		case !m.connected():
		case m.isEjected():
			ejected = m
		case m.hold():
			return m
		}
	}
	if ejected != nil && ejected.hold() {
		return ejected
	}
	return nil
}
