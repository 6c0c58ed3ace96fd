package fleet

import (
	"context"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A memberKey is what a connection is made for.
type memberKey struct{ addr, name string }

// A member is an endpoint with its connections. There can be 10,000, so what one takes is made
// when it is dialled.
type member struct {
	fleet *Client
	key   memberKey

	conn    atomic.Pointer[kernel.Conn] // the one that was made last; nil: none was
	client  atomic.Pointer[kernel.Client]
	users   atomic.Int64 // opens and calls under way, or below 0: it is over
	opens   atomic.Uint64
	next    atomic.Int64 // when it may be dialled again: a time of Client.now; 0: the last dial has not failed
	dialing atomic.Bool

	bad       atomic.Int64 // calls that have failed, in a row
	ejected   atomic.Int64 // until when it gets none; 0: it is not on probation either
	ejections atomic.Uint64

	mu            sync.Mutex
	failures      int   // to connect, in a row
	err           error // the last of them
	ejectedInARow int

	// Client.mu guards these.
	endpoint Endpoint
	taken    uint64        // the set that had it last
	leaving  bool          // it is in the set no more
	left     time.Duration // when that was
}

// over is added to users when the member is over.
const over = -1 << 62

// hold keeps the member's client from being closed until release.
func (m *member) hold() bool {
	if m.users.Add(1) > 0 {
		return true
	}
	m.users.Add(-1)
	return false
}

func (m *member) release() { m.users.Add(-1) }

// ready reports whether it gets calls: it is connected, and not ejected.
func (m *member) ready() bool { return m.connected() && !m.isEjected() }

// connected reports whether a stream can be opened without connecting first.
func (m *member) connected() bool {
	if m.fleet.own.ConnType == kernel.ConnShort {
		return m.due() // each stream connects for itself
	}
	k := m.conn.Load()
	if k == nil {
		return false
	}
	select {
	case <-k.GoingAway():
		return false
	default:
		return true
	}
}

// due reports whether the pause after a failure is over.
func (m *member) due() bool {
	next := m.next.Load()
	return next == 0 || m.fleet.now() >= time.Duration(next)
}

// kernel returns the member's client, which is made at its first use.
func (m *member) kernel() (*kernel.Client, error) {
	if k := m.client.Load(); k != nil {
		return k, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.client.Load(); k != nil {
		return k, nil
	}
	if m.users.Load() < 0 {
		return nil, m.fleet.errClosed()
	}
	o := m.fleet.own
	target := m.key.addr
	if m.key.name != "" && m.key.name != m.key.addr {
		target = m.key.name
		network, addr := "tcp", m.key.addr
		if path, ok := strings.CutPrefix(addr, "unix:"); ok {
			network, addr = "unix", path
		}
		dial := o.Dial
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, network, addr) }
	}
	k, err := kernel.NewClient(m.fleet.protocol+target, &o)
	if err == nil {
		m.client.Store(k)
	}
	return k, err
}

// end makes the member over, whoever uses it, and returns the client that is to be closed.
func (m *member) end() *kernel.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users.Load() >= 0 {
		m.users.Add(over)
	}
	return m.client.Load()
}

// streams is how many streams and calls are open.
func (m *member) streams() (conns, streams int) {
	if k := m.client.Load(); k != nil {
		for _, c := range k.Conns() {
			conns++
			streams += c.Streams()
		}
	}
	return conns, streams
}

// wake begins to connect to a member, in the background, unless that is under way or it is too
// early.
func (m *member) wake() bool {
	c := m.fleet
	if m.connected() || m.dialing.Load() || !m.due() || c.dials.Load() >= mostDials || !m.dialing.CompareAndSwap(false, true) {
		return false
	}
	c.dials.Add(1)
	if !c.start(m.dial) {
		c.dials.Add(-1)
		m.dialing.Store(false)
		return false
	}
	return true
}

// mostDials is how many endpoints a client connects to at a time.
const mostDials = 16

func (m *member) dial() {
	c := m.fleet
	err := m.connect(c.closing)
	if err != nil && c.closing.Err() == nil {
		m.fail(err)
	}
	m.dialing.Store(false)
	c.dials.Add(-1)
	c.change()
}

func (m *member) connect(ctx context.Context) error {
	if !m.hold() {
		return nil // it has been removed
	}
	defer m.release()
	k, err := m.kernel()
	if err != nil {
		return err
	}
	conn, err := k.Conn(ctx)
	if err != nil {
		return err
	}
	m.conn.Store(conn)
	m.succeed()
	return nil
}

// succeed notes that a connection could be made.
func (m *member) succeed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next.Store(0)
	m.failures, m.err = 0, nil
}

// fail notes that no connection could be made, and when to try again.
func (m *member) fail(err error) {
	c := m.fleet
	m.mu.Lock()
	m.next.Store(int64(c.now() + c.backoff(m.failures)))
	m.failures++
	m.err = err
	m.mu.Unlock()
	c.lastErr.Store(&err)
	c.failed.Add(1)
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// leastPause is the shortest between two attempts.
const leastPause = 10 * time.Millisecond

// backoff is the pause after n+1 failures.
func (c *Client) backoff(n int) time.Duration {
	b := c.own.Backoff
	d, most := float64(b.First), float64(b.Most)
	for ; n > 0 && d < most && b.Factor > 1; n-- {
		d *= b.Factor
	}
	return max(leastPause, time.Duration(min(d, most)*(1+b.Jitter*rand.Float64())))
}
