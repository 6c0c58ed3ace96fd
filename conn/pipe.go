package conn

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is what each direction of a Pipe holds, bytes.
const pipeBuffer = 256 << 10

// Pipe returns the two ends of a connection in memory. Unlike net.Pipe it has buffers,
// as sockets have, and CloseWrite.
func Pipe() (a, b net.Conn) {
	x, y := newHalf(), newHalf()
	return &pipeEnd{in: x, out: y}, &pipeEnd{in: y, out: x}
}

// half is one direction.
type half struct {
	mu       sync.Mutex
	cond     *sync.Cond
	buf      []byte
	eof      bool // the writer has closed
	broken   bool // the reader has closed
	deadline [2]time.Time
	timer    [2]*time.Timer
}

const (
	forRead = iota
	forWrite
)

func newHalf() *half {
	h := &half{}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) late(i int) bool {
	d := h.deadline[i]
	return !d.IsZero() && !time.Now().Before(d)
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.eof:
			return 0, io.EOF
		case h.late(forRead):
			return 0, os.ErrDeadlineExceeded
		}
		h.cond.Wait()
	}
	n := copy(p, h.buf)
	if h.buf = h.buf[n:]; len(h.buf) == 0 {
		h.buf = nil
	}
	h.cond.Broadcast()
	return n, nil
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(p) {
		switch {
		case h.eof:
			return n, net.ErrClosed
		case h.broken:
			return n, io.ErrClosedPipe
		case h.late(forWrite):
			return n, os.ErrDeadlineExceeded
		}
		k := min(pipeBuffer-len(h.buf), len(p)-n)
		if k == 0 {
			h.cond.Wait()
			continue
		}
		h.buf = append(h.buf, p[n:n+k]...)
		n += k
		h.cond.Broadcast()
	}
	return n, nil
}

func (h *half) end(eof, broken bool) {
	h.mu.Lock()
	h.eof, h.broken = h.eof || eof, h.broken || broken
	if h.broken {
		h.buf = nil
	}
	h.cond.Broadcast()
	h.mu.Unlock()
}

func (h *half) setDeadline(i int, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline[i] = t
	if h.timer[i] != nil {
		h.timer[i].Stop()
		h.timer[i] = nil
	}
	if !t.IsZero() {
		h.timer[i] = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			h.cond.Broadcast()
			h.mu.Unlock()
		})
	}
	h.cond.Broadcast()
}

func (h *half) stopTimer(i int) {
	h.mu.Lock()
	if h.timer[i] != nil {
		h.timer[i].Stop()
		h.timer[i] = nil
	}
	h.mu.Unlock()
}

type pipeEnd struct{ in, out *half }

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }

// CloseWrite ends the direction to the peer.
func (e *pipeEnd) CloseWrite() error {
	e.out.end(true, false)
	return nil
}

func (e *pipeEnd) Close() error {
	e.out.end(true, false)
	e.in.end(false, true)
	e.in.stopTimer(forRead)
	e.out.stopTimer(forWrite)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (e *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (e *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(forRead, t)
	return nil
}

func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(forWrite, t)
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}
