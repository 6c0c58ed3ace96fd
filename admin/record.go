package admin

import (
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

const (
	mostClosed  = 256 // ends that are kept, of each kind
	mostMethods = 512 // names that are counted apart: peers choose them
	mostCodes   = 24  // codes that a method counts apart
	mostName    = 256 // bytes of a method's name
	mostReason  = 256 // bytes of why something has ended

	otherMethods = "(other methods)"
	otherCodes   = status.Code(1<<32 - 1)
)

// A ring keeps the last mostClosed of what is put into it.
type ring[T any] struct {
	of   []T
	next int
}

func (r *ring[T]) put(v T) {
	if len(r.of) < mostClosed {
		r.of = append(r.of, v)
		return
	}
	r.of[r.next] = v
	r.next = (r.next + 1) % mostClosed
}

// latest returns what is kept, the last first.
func (r *ring[T]) latest() []T {
	vs := append(slices.Clone(r.of[r.next:]), r.of[:r.next]...)
	slices.Reverse(vs)
	return vs
}

// A closedStream is a stream that has ended.
type closedStream struct {
	n      uint64 // counts them
	at     time.Time
	conn   uint64
	peer   net.Addr
	info   kernel.StreamInfo
	reason string // empty: in order
}

// A closedConn is a connection that has ended.
type closedConn struct {
	n      uint64
	at     time.Time
	info   kernel.ConnInfo
	reason string
}

// A method is what is counted of one.
type method struct {
	name              string
	open              int
	ended             uint64
	codes             map[status.Code]uint64
	accepted, whole   histogram
	messages          uint64
	bytesIn, bytesOut uint64
}

// A recorder is told of what begins and ends.
type recorder struct {
	mu      sync.Mutex
	n       uint64
	methods map[string]*method
	failed  ring[closedStream] // apart, so that those in order don't push them out
	ended   ring[closedStream]
	conns   ring[closedConn]
}

// method returns what is counted of a method. The lock is held.
func (r *recorder) method(name string) *method {
	name = name[:min(len(name), mostName)]
	if m := r.methods[name]; m != nil {
		return m
	}
	if len(r.methods) >= mostMethods {
		if name = otherMethods; r.methods[name] != nil {
			return r.methods[name]
		}
	}
	if r.methods == nil {
		r.methods = map[string]*method{}
	}
	m := &method{name: strings.Clone(name), codes: map[status.Code]uint64{}}
	r.methods[m.name] = m
	return m
}

func (r *recorder) streamBegun(s *kernel.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.method(s.Method()).open++
}

func (r *recorder) streamEnded(s *kernel.Stream, i *kernel.StreamInfo) {
	c := closedStream{at: time.Now(), conn: s.Conn().ID(), peer: s.Conn().Peer().Addr, info: *i}
	c.info.Method = i.Method[:min(len(i.Method), mostName)]
	if err := s.Err(); err != nil && i.Code != status.OK {
		c.reason = errtext.Clip(err.Error(), mostReason)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	c.n = r.n
	r.method(i.Method).count(i)
	if i.Code != status.OK {
		r.failed.put(c)
	} else {
		r.ended.put(c)
	}
}

// count counts a stream that has ended.
func (m *method) count(i *kernel.StreamInfo) {
	m.open--
	m.ended++
	code := i.Code
	if _, ok := m.codes[code]; !ok && len(m.codes) >= mostCodes {
		code = otherCodes
	}
	m.codes[code]++
	if i.Latency > 0 {
		m.accepted.add(i.Latency)
	}
	m.whole.add(i.Age)
	m.messages += i.MessagesSent + i.MessagesReceived
	m.bytesIn += i.BytesReceived
	m.bytesOut += i.BytesSent
}

func (r *recorder) connEnded(c *kernel.Conn, i *kernel.ConnInfo) {
	reason := ""
	if err := c.Err(); err != nil {
		reason = errtext.Clip(err.Error(), mostReason)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	r.conns.put(closedConn{r.n, time.Now(), *i, reason})
}

// ConnBegun implements kernel.Observer.
func (h *Handler) ConnBegun(*kernel.Conn) {}

// ConnEnded implements kernel.Observer.
func (h *Handler) ConnEnded(c *kernel.Conn, i kernel.ConnInfo) { h.recorder.connEnded(c, &i) }

// StreamBegun implements kernel.Observer.
func (h *Handler) StreamBegun(s *kernel.Stream) { h.recorder.streamBegun(s) }

// StreamEnded implements kernel.Observer.
func (h *Handler) StreamEnded(s *kernel.Stream, i kernel.StreamInfo) { h.recorder.streamEnded(s, &i) }
