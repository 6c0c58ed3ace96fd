package faults

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A Kind is how a connection breaks.
type Kind int

const (
	// Cut ends both directions with a FIN, and loses what is sent behind it.
	Cut Kind = iota
	// Reset ends both sides' connections with a RST.
	Reset
	// HalfClose ends one direction with a FIN, and loses what is sent behind it. The other
	// direction goes on.
	HalfClose
)

var kindNames = [...]string{"cut", "reset", "half-close"}

func (k Kind) String() string { return kindNames[k] }

// A Fault breaks a connection when so many bytes were carried in one direction.
type Fault struct {
	Kind Kind
	Up   bool // from the client to the server
	At   int64
}

func (f *Fault) String() string {
	if f.Up {
		return fmt.Sprintf("%v after %d bytes to the server", f.Kind, f.At)
	}
	return fmt.Sprintf("%v after %d bytes to the client", f.Kind, f.At)
}

// A relay carries the connections that it accepts to one address. The first has the fault. From
// then on it refuses others, until the path is repaired: grpc-go's client tries a stream again by
// itself whose beginning it has not written, and where SendMsg has told its caller of the end
// before that, nobody sends the rest.
type relay struct {
	ln     net.Listener
	target string
	fault  *Fault // nil: none

	struck   atomic.Bool  // the fault has come
	repaired atomic.Bool  // there are no faults any more
	up, down atomic.Int64 // bytes that the first connection has carried before the repair

	mu    sync.Mutex
	conns []*net.TCPConn // both sides' of every connection
	done  bool
	wg    sync.WaitGroup // the accept loop and the copiers; close waits
}

func newRelay(target string, f *Fault) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln, target: target, fault: f}
	r.wg.Go(r.accept)
	return r, nil
}

func (r *relay) addr() string { return r.ln.Addr().String() }

// close ends every connection and waits until nothing of the relay runs.
func (r *relay) close() {
	r.mu.Lock()
	r.done = true
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.ln.Close()
	r.wg.Wait()
}

// repair lets connections be made again. A fault that has not come yet never does.
func (r *relay) repair() { r.repaired.Store(true) }

func (r *relay) accept() {
	for first := true; ; first = false {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		if !first && r.struck.Load() && !r.repaired.Load() {
			reset(client.(*net.TCPConn))
			continue
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			client.Close()
			continue
		}
		l := &link{r: r, client: client.(*net.TCPConn), server: server.(*net.TCPConn), counted: first}
		if first {
			l.fault = r.fault
		}
		if !r.track(l.client, l.server) {
			return
		}
		r.wg.Go(l.carry)
	}
}

// track notes connections for close. If that has been, it closes them.
func (r *relay) track(conns ...*net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, conns...)
	if r.done {
		for _, c := range conns {
			c.Close()
		}
	}
	return !r.done
}

// A link is one connection from a client on to the server.
type link struct {
	r              *relay
	client, server *net.TCPConn
	fault          *Fault // nil: none
	counted        bool
	cut            atomic.Bool // nothing is carried any more
}

func (l *link) carry() {
	var both sync.WaitGroup
	both.Go(func() { l.copy(l.server, l.client, true) })
	both.Go(func() { l.copy(l.client, l.server, false) })
	both.Wait()
	l.client.Close()
	l.server.Close()
}

// copy carries one direction until src ends, and passes the end on.
func (l *link) copy(dst, src *net.TCPConn, up bool) {
	var carried int64
	var lost bool // what comes is dropped from now on
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		p := buf[:n]
		if f := l.fault; f != nil && f.Up == up && !lost && !l.r.repaired.Load() && carried+int64(n) >= f.At {
			_, _ = dst.Write(p[:f.At-carried]) // who has gone does not miss it
			l.strike(dst)
			lost = true
		}
		if !lost && !l.cut.Load() {
			m, _ := dst.Write(p) // if dst has ended, so does the other direction
			carried += int64(m)
			l.count(int64(m), up)
		}
		if err != nil {
			end(dst, err)
			return
		}
	}
}

func (l *link) count(n int64, up bool) {
	switch {
	case !l.counted || l.r.repaired.Load():
	case up:
		l.r.up.Add(n)
	default:
		l.r.down.Add(n)
	}
}

// strike breaks the connection. dst is where the direction leads that the fault is in.
func (l *link) strike(dst *net.TCPConn) {
	l.r.struck.Store(true)
	switch l.fault.Kind {
	case Cut:
		l.cut.Store(true)
		_ = l.client.CloseWrite()
		_ = l.server.CloseWrite()
	case Reset:
		reset(l.client)
		reset(l.server)
	case HalfClose:
		_ = dst.CloseWrite()
	}
}

// end passes on how a direction has ended: in order, or else with a reset.
func end(dst *net.TCPConn, err error) {
	if err == io.EOF {
		_ = dst.CloseWrite()
		return
	}
	reset(dst)
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails if it is closed already
	c.Close()
}
