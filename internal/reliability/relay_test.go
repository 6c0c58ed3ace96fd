package reliability

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A kind is what happens to a connection.
type kind int

const (
	none      kind = iota
	cut            // both directions end with a FIN, and what is sent behind it is lost
	reset          // both sides' connections end with a RST
	fin            // one direction ends with a FIN, and what is sent behind it is lost
	chop           // one direction comes in pieces of a few bytes
	delay          // what is read of one direction comes later, again and again
	freeze         // one direction stands still for a time
	throttle       // one direction is slow
	flip           // a bit changes
	blackhole      // what is sent is lost, and so are FINs and RSTs; nobody is told
	kinds
)

var kindNames = [...]string{"none", "cut", "reset", "fin", "chop", "delay", "freeze", "throttle", "flip", "blackhole"}

func (k kind) String() string { return kindNames[k] }

// loses tells whether a connection does not live on.
func (k kind) loses() bool {
	switch k {
	case cut, reset, fin, flip, blackhole:
		return true
	}
	return false
}

// A fault strikes the connection that carries a byte.
type fault struct {
	kind  kind
	up    bool          // the byte is on its way from the client to the server
	at    int64         // the byte's number among all that goes that way, from 0 on
	bit   int           // of a flip
	both  bool          // a blackhole takes both directions
	piece int           // of a chop, bytes at most
	pause time.Duration // of a freeze, and between two pieces where they are delayed or throttled
}

func (f fault) String() string {
	where := "to the client"
	if f.up {
		where = "to the server"
	}
	return fmt.Sprintf("%v at byte %d %s", f.kind, f.at, where)
}

// How long a fault that loses nothing goes on.
const (
	chopped   = 4 << 10   // bytes
	delayed   = 20        // reads
	throttled = 100 << 10 // bytes, a tenth at a time
)

// A relay carries all connections that it accepts to one address. One of them has the fault.
type relay struct {
	ln      net.Listener
	target  string
	fault   fault
	struck  atomic.Bool
	strikes context.Context // ends as the fault strikes
	begins  func()

	mu      sync.Mutex
	carried [2]int64 // to the client, to the server
	links   map[*link]bool
	done    bool
	over    chan struct{}  // closed with done: ends every pause
	wg      sync.WaitGroup // the accept loop and the copiers; close waits
}

func newRelay(t testing.TB, target string, f fault) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, target: target, fault: f, links: map[*link]bool{}, over: make(chan struct{})}
	r.strikes, r.begins = context.WithCancel(context.Background())
	r.wg.Go(r.accept)
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

// repair makes the path whole. A fault that has not come yet never does, and connections of
// which something was swallowed are reset.
func (r *relay) repair() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault.kind = none
	for l := range r.links {
		if l.lost[0].Load() || l.lost[1].Load() {
			l.reset()
		}
	}
}

// close ends every connection and waits until nothing of the relay runs.
func (r *relay) close() {
	r.mu.Lock()
	r.done = true
	close(r.over)
	for l := range r.links {
		l.reset()
	}
	r.mu.Unlock()
	r.ln.Close()
	r.wg.Wait()
	r.begins()
}

func (r *relay) bytes() (down, up int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.carried[0], r.carried[1]
}

func (r *relay) accept() {
	for {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			client.Close()
			continue
		}
		l := &link{r: r, client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
		r.mu.Lock()
		if r.done {
			l.reset()
		}
		r.links[l] = true
		r.mu.Unlock()
		r.wg.Go(l.carry)
	}
}

// A link is one connection from a client on to the server.
type link struct {
	r              *relay
	client, server *net.TCPConn
	lost           [2]atomic.Bool // what comes is dropped, by direction
	silent         atomic.Bool    // ends are not passed on either
}

func (l *link) reset() {
	for _, c := range []*net.TCPConn{l.client, l.server} {
		_ = c.SetLinger(0) // fails if it is closed already
		c.Close()
	}
}

func (l *link) carry() {
	var both sync.WaitGroup
	both.Go(func() { (&flow{link: l, src: l.client, dst: l.server, up: true}).copy() })
	both.Go(func() { (&flow{link: l, src: l.server, dst: l.client}).copy() })
	both.Wait()
	l.client.Close()
	l.server.Close()
	l.r.mu.Lock()
	delete(l.r.links, l)
	l.r.mu.Unlock()
}

// A flow is one direction of a link.
type flow struct {
	*link
	src, dst *net.TCPConn
	up       bool
	kind     kind // what it does to what it carries from now on
	left     int  // for how long
}

func way(up bool) int {
	if up {
		return 1
	}
	return 0
}

func (f *flow) isLost() *atomic.Bool { return &f.lost[way(f.up)] }

// copy carries the direction until its source ends, and passes the end on.
func (f *flow) copy() {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.src.Read(buf)
		if n > 0 {
			f.pass(buf[:n])
		}
		switch {
		case err == nil:
		case f.silent.Load(): // until the repair
			return
		case err == io.EOF:
			_ = f.dst.CloseWrite()
			return
		default:
			_ = f.dst.SetLinger(0)
			f.dst.Close()
			return
		}
	}
}

// pass carries p, and has the fault strike if it is in it.
func (f *flow) pass(p []byte) {
	r := f.r
	r.mu.Lock()
	begin := r.carried[way(f.up)]
	r.carried[way(f.up)] += int64(len(p))
	fault := r.fault
	r.mu.Unlock()
	if fault.kind == none || fault.up != f.up || fault.at < begin || fault.at >= begin+int64(len(p)) {
		f.write(p)
		return
	}
	n := fault.at - begin
	f.write(p[:n])
	r.struck.Store(true)
	r.begins()
	f.strike(fault, p[n:])
	f.write(p[n:])
}

// strike does what the fault is. rest is what is still to be carried.
func (f *flow) strike(fault fault, rest []byte) {
	f.kind = fault.kind
	switch fault.kind {
	case cut:
		f.lost[0].Store(true)
		f.lost[1].Store(true)
		_ = f.client.CloseWrite()
		_ = f.server.CloseWrite()
	case reset:
		f.lost[0].Store(true)
		f.lost[1].Store(true)
		f.link.reset()
	case fin:
		f.isLost().Store(true)
		_ = f.dst.CloseWrite()
	case flip:
		rest[0] ^= 1 << fault.bit
	case blackhole:
		f.silent.Store(true)
		f.isLost().Store(true)
		if fault.both {
			f.lost[way(!f.up)].Store(true)
		}
	case freeze:
		f.wait(fault.pause)
	case chop:
		f.left = chopped
	case delay:
		f.left = delayed
	case throttle:
		f.left = throttled
	}
}

// write carries p on, in the way that the fault has left. If the other side has ended, so does
// this direction.
func (f *flow) write(p []byte) {
	for len(p) > 0 && !f.isLost().Load() {
		n := len(p)
		if f.left > 0 {
			switch f.kind {
			case chop:
				n = min(n, f.r.fault.piece)
				f.left -= n
				runtime.Gosched()
			case delay:
				f.left--
				f.wait(f.r.fault.pause)
			case throttle:
				n = min(n, throttled/10)
				f.left -= n
				f.wait(f.r.fault.pause)
			}
		}
		_, _ = f.dst.Write(p[:n])
		p = p[n:]
	}
}

func (f *flow) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.r.over:
	}
}
