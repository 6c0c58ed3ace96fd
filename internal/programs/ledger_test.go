package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A talk is what is known of one stream: what each side has sent and taken.
type talk struct {
	key  uint64
	up   half // from the opener
	down half

	mu    sync.Mutex
	story []string // what the sides have done
}

// note adds to the story.
func (t *talk) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.story = append(t.story, fmt.Sprintf(format, args...))
}

// told is the story, in one line.
func (t *talk) told() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.story, "; ")
}

// A half is one direction of a stream. Message i of it is known from its key and i alone, so
// that a reader can tell what is missing, out of order or there twice.
type half struct {
	key     uint64
	tried   atomic.Int64 // messages that were begun to be sent
	sent    atomic.Int64 // messages that the library has taken over
	ended   atomic.Bool  // the sender has begun to end it in order, before anything failed
	got     atomic.Int64 // messages that were taken
	clean   atomic.Bool  // the reader has seen its end in order
	stopped atomic.Bool  // the reader has begun to end it, so that it may miss some
}

// talk is the one with a key, for both sides.
func (r *run) talk(key uint64) *talk {
	t, _ := r.talks.LoadOrStore(key, &talk{key: key, up: half{key: key << 1}, down: half{key: key<<1 | 1}})
	return t.(*talk)
}

// halves are what a side sends and what it receives.
func (t *talk) halves(opener bool) (out, in *half) {
	if opener {
		return &t.up, &t.down
	}
	return &t.down, &t.up
}

// form is the length of message i of a half, and what it is filled with.
func (r *run) form(key uint64, i int64) (n int, fill byte) {
	rnd := rand.New(rand.NewPCG(key, uint64(i)))
	most := r.plan.maxMessage
	switch c := rnd.IntN(20); {
	case c < 3:
	case c < 6:
		n = rnd.IntN(16)
	case c < 12:
		n = rnd.IntN(300)
	case c < 17:
		n = rnd.IntN(5000)
	case c < 19:
		n = rnd.IntN(70_000)
	default:
		n = most
	}
	return min(n, most), byte(rnd.Uint32())
}

// message makes message i of h.
func (r *run) message(h *half, i int64) pool.Message {
	n, fill := r.form(h.key, i)
	m := pool.New(n)
	b := m.Bytes()
	for j := range b {
		b[j] = fill
	}
	if i%7 == 3 {
		m.SetCompression(pool.NoCompression)
	}
	return m
}

// send sends the next message of h by f, which takes it over if it returns nil. Only one
// goroutine at a time sends on a half.
func (r *run) send(h *half, f func(m pool.Message) error) error {
	i := h.tried.Add(1) - 1
	m := r.message(h, i)
	err := f(m)
	if err != nil {
		m.Release()
		h.tried.Add(-1)
		return err
	}
	h.sent.Add(1)
	return nil
}

// take checks the next message of h, and releases it. Only one goroutine at a time takes.
func (r *run) take(h *half, m pool.Message) {
	defer m.Release()
	i := h.got.Add(1) - 1
	n, fill := r.form(h.key, i)
	if tried := h.tried.Load(); i >= tried {
		r.fail("stream %d: message %d was taken, %d were sent", h.key, i, tried)
	}
	if m.Len() != n {
		r.fail("stream %d: message %d has %d bytes, of %d", h.key, i, m.Len(), n)
		return
	}
	for j, c := range m.Bytes() {
		if c != fill {
			r.fail("stream %d: message %d has %d at %d, not %d", h.key, i, c, j, fill)
			return
		}
	}
}

// finished notes how the reading of h has ended.
func (r *run) finished(h *half, err error) {
	if (err == nil || errors.Is(err, io.EOF)) && !h.stopped.Load() {
		h.clean.Store(true)
	}
}

// settled checks a talk that is over on both sides.
func (r *run) settled(t *talk) {
	for _, h := range []*half{&t.up, &t.down} {
		sent, got, bad := h.sent.Load(), h.got.Load(), ""
		switch {
		case got > sent:
			bad = "more messages were taken than sent"
		case !h.clean.Load():
		case !h.ended.Load():
			bad = "an end in order was read, which nobody has made"
		case got != sent:
			bad = "messages are missing before the end in order"
		}
		if bad != "" {
			r.fail("stream %d: %s: %d of %d: %s", h.key, bad, got, sent, t.told())
		}
	}
}

// discarded checks what a side was told of what it has sent in vain.
func (r *run) discarded(s *kernel.Stream, h *half) {
	select {
	case <-s.Done():
	default:
		return
	}
	if s.Err() != nil || !r.caps.Ended {
		return
	}
	if sent, got, d := h.sent.Load(), h.got.Load(), int64(s.Discarded()); got > sent-d {
		r.fail("stream %d: %d of %d messages are said to be discarded, %d were taken", h.key, d, sent, got)
	}
}

// never are the codes that no program of ours may see, whatever it does.
var never = map[status.Code]bool{
	status.EnhanceYourCalm: true, status.Protocol: true, status.FlowControl: true, status.FrameSize: true, status.StreamState: true,
	status.Checksum: true, status.Version: true, status.DataLoss: true, status.Keepalive: true, status.WriteStall: true, status.HandshakeTimeout: true,
}

// lost are codes that a stream may see only if the program has ended a connection.
var lost = map[status.Code]bool{status.ConnectionLost: true, status.Unavailable: true}

// judge checks what something has returned.
func (r *run) judge(what string, err error) {
	if err == nil {
		return
	}
	var se *status.StreamError
	var ce *status.ConnError
	var pe *status.ProtocolError
	switch {
	case errors.As(err, &pe) && !(r.caps.StreamsByID && pe.Code == status.TooLarge): // which ends a stream's connection there
		r.fail("%s: %v", what, err)
	case errors.As(err, &se) && never[se.Code], errors.As(err, &ce) && never[ce.Code]:
		r.fail("%s: %v", what, err)
	case r.mayLose():
	case errors.As(err, &ce) && (ce.Op == "dial" || ce.Op == "handshake") && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
	case errors.As(err, &se) && lost[se.Code] && !r.caps.StreamsByID, errors.As(err, &ce) && !r.caps.StreamsByID:
		r.fail("%s: %v, though nothing has ended the connection", what, err)
	case errors.As(err, &se) && se.Code == status.Internal && !deserved(se.Reason):
		r.fail("%s: %v", what, err)
	}
}

// deserved tells whether a program has asked for an INTERNAL with a reason.
func deserved(reason string) bool {
	switch reason {
	case "the handler panicked", "a reset with INTERNAL": // HTTP/2's resets have no reason
		return true
	}
	return false
}

// An observer judges the ends of connections.
type observer struct {
	r    *run
	side string
}

func (o observer) ConnBegun(*kernel.Conn)     {}
func (o observer) StreamBegun(*kernel.Stream) {}
func (o observer) StreamEnded(s *kernel.Stream, _ kernel.StreamInfo) {
	o.r.judge("a stream of the "+o.side, s.Err())
}

func (o observer) ConnEnded(c *kernel.Conn, i kernel.ConnInfo) {
	if never[i.Code] {
		o.r.fail("the %s's connection has ended with %v: %v", o.side, i.Code, c.Err())
	}
	if i.Code == status.OK { // ConnShort's are closed in order
		return
	}
	if i.Code == status.ConnectionLost && i.MessagesSent+i.MessagesReceived == 0 && i.Memory == i.Own {
		return // nobody has used it: who has dialled gave up, or a brpc server has waited Limits.Handshake for a first byte
	}
	o.r.judge(fmt.Sprintf("the %s's connection (%+v)", o.side, i), c.Err())
}
