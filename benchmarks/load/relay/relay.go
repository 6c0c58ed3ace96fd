// Package relay is a TCP relay that injects faults: it delays data and resets
// connections.
package relay

import (
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Relay carries every connection that it accepts to one address.
type Relay struct {
	ln     net.Listener
	target string
	delay  atomic.Int64

	mu    sync.Mutex
	links map[*link]struct{}
	done  bool
	over  chan struct{}  // closed with done: ends every delay
	wg    sync.WaitGroup // the accept loop and all copiers; Close waits
}

// link is one relayed connection.
type link struct{ client, server net.Conn }

// New listens on a port of its own and relays to target.
func New(target string) (*Relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{ln: ln, target: target, links: make(map[*link]struct{}), over: make(chan struct{})}
	r.wg.Go(r.accept)
	return r, nil
}

// Addr returns where to connect.
func (r *Relay) Addr() string { return r.ln.Addr().String() }

// Delay holds back all that arrives from now on, in each direction, for d.
func (r *Relay) Delay(d time.Duration) { r.delay.Store(int64(d)) }

// Kill resets a share of the connections, at least one if there is any, and returns how
// many.
func (r *Relay) Kill(share float64) int {
	r.mu.Lock()
	links := make([]*link, 0, len(r.links))
	for l := range r.links {
		links = append(links, l)
	}
	r.mu.Unlock()
	rand.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
	n := min(max(int(share*float64(len(links))+0.5), 1), len(links))
	for _, l := range links[:n] {
		l.kill()
	}
	return n
}

// Close resets the open connections and stops listening.
func (r *Relay) Close() error {
	r.mu.Lock()
	if !r.done {
		r.done = true
		close(r.over)
	}
	for l := range r.links {
		l.kill()
	}
	r.mu.Unlock()
	err := r.ln.Close()
	r.wg.Wait()
	return err
}

func (r *Relay) accept() {
	for {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.carry(client) })
	}
}

func (r *Relay) carry(client net.Conn) {
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client, server}
	if !r.add(l) {
		l.kill()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(server, client) })
	both.Go(func() { r.copy(client, server) })
	both.Wait()
	r.mu.Lock()
	delete(r.links, l)
	r.mu.Unlock()
	client.Close()
	server.Close()
}

func (r *Relay) add(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.done {
		r.links[l] = struct{}{}
	}
	return !r.done
}

// kill closes both ends with a reset.
func (l *link) kill() {
	for _, c := range []net.Conn{l.client, l.server} {
		_ = c.(*net.TCPConn).SetLinger(0) // fails if it is closed already
		c.Close()
	}
}

// copy carries from src to dst until src ends, and passes the end on.
func (r *Relay) copy(dst, src net.Conn) {
	h := newHold()
	var writer sync.WaitGroup
	writer.Go(func() { r.write(dst, h) })
	p := make([]byte, readSize)
	for {
		n, err := src.Read(p)
		if n > 0 {
			due := time.Now().Add(time.Duration(r.delay.Load()))
			if n > readSize/2 {
				h.push(chunk{p[:n], due})
				p = make([]byte, readSize)
			} else { // a small one must not keep a large buffer
				h.push(chunk{slices.Clone(p[:n]), due})
			}
		}
		if err != nil {
			h.end()
			writer.Wait()
			end(dst, err)
			return
		}
	}
}

// readSize is how much is read at a time, at most.
const readSize = 64 << 10

// write writes each chunk when it is due. After an error it still takes the others, so that the
// reader never blocks.
func (r *Relay) write(dst net.Conn, h *hold) {
	var err error
	for c, ok := h.pop(); ok; c, ok = h.pop() {
		if err != nil {
			continue
		}
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.over:
			}
		}
		_, err = dst.Write(c.p)
	}
}

// end passes on how the other side ended: with a FIN, or else as a reset.
func end(dst net.Conn, err error) {
	tcp := dst.(*net.TCPConn)
	if err == io.EOF {
		_ = tcp.CloseWrite()
		return
	}
	_ = tcp.SetLinger(0)
	_ = tcp.Close()
}
