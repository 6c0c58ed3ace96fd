package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// A plan is the sizes of the messages of each stream of a session. The last stream is opened
// when the others have ended: the client must be able to connect again.
type plan [][]int

// newPlan has streams of every kind: one message, many small ones, more than the first window of
// HTTP/2, and messages larger than that.
func newPlan(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	sizes := func(n, least, most int) (out []int) {
		for range n {
			out = append(out, least+rng.IntN(most-least+1))
		}
		return out
	}
	return plan{
		sizes(1, 0, 10), sizes(40, 0, 200), sizes(20, 0, 2<<10),
		sizes(12, 4<<10, 12<<10), sizes(2, 30<<10, 40<<10), sizes(1, 80<<10, 100<<10),
		sizes(3, 0, 2<<10), // the last
	}
}

// headerSize is of a message: the session, the stream, its number, how many there will be, and a
// checksum over these and what follows.
const headerSize = 5 * 4

func makeMessage(session, stream uint32, number, total, size int) []byte {
	p := make([]byte, headerSize+size)
	for i, v := range []uint32{session, stream, uint32(number), uint32(total)} {
		binary.LittleEndian.PutUint32(p[4*i:], v)
	}
	for i := range size {
		p[headerSize+i] = byte(i*7 + number)
	}
	binary.LittleEndian.PutUint32(p[16:], sum(p))
	return p
}

func sum(p []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(p[:16]), crc32.IEEETable, p[headerSize:])
}

// A half is what one side has received of a stream.
type half struct {
	session, stream uint32
	sizes           []int
	got             int
}

// take checks that p is the next message.
func (h *half) take(p []byte) error {
	switch {
	case len(p) < headerSize || binary.LittleEndian.Uint32(p[16:]) != sum(p):
		return errors.New("a message is corrupt")
	case binary.LittleEndian.Uint32(p) != h.session || binary.LittleEndian.Uint32(p[4:]) != h.stream:
		return errors.New("a message is another stream's")
	case int(binary.LittleEndian.Uint32(p[8:])) != h.got:
		return fmt.Errorf("message %d comes when it is %d's turn", binary.LittleEndian.Uint32(p[8:]), h.got)
	case h.got == len(h.sizes) || len(p) != headerSize+h.sizes[h.got]:
		return fmt.Errorf("message %d of %d has %d bytes", h.got, len(h.sizes), len(p))
	}
	h.got++
	return nil
}

// end checks what a clean end means: that all messages have come.
func (h *half) end() error {
	if h.got != len(h.sizes) {
		return fmt.Errorf("a clean end after %d of %d messages", h.got, len(h.sizes))
	}
	return nil
}

// A session is the streams of one client, and what each side found.
type session struct {
	id      uint32
	plan    plan
	limit   time.Duration
	mu      sync.Mutex
	begun   []int  // by stream: how many handlers have received its first message
	ended   []bool // by stream: a handler has received all and sent all
	clean   int    // streams that have ended in order for the client
	broken  int    // those that have ended with an error
	wrong   []error
	running sync.WaitGroup // handlers
}

func newSession(id uint32, p plan, limit time.Duration) *session {
	return &session{id: id, plan: p, limit: limit, begun: make([]int, len(p)), ended: make([]bool, len(p))}
}

func (s *session) fault(who string, stream uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Errorf("%s, stream %d: %w", who, stream, err))
}

// handle is the server's side of a stream: it sends back what it receives.
func (s *session) handle(stream uint32, t talk) error {
	h := half{session: s.id, stream: stream, sizes: s.plan[stream]}
	for {
		p, err := t.receive()
		if err == io.EOF {
			if err := h.end(); err != nil {
				s.fault("server", stream, err)
				return err
			}
			s.mu.Lock()
			s.ended[stream] = true
			s.mu.Unlock()
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.take(p); err != nil {
			s.fault("server", stream, err)
			return err
		}
		if h.got == 1 {
			s.mu.Lock()
			s.begun[stream]++
			twice := s.begun[stream] > 1
			s.mu.Unlock()
			if twice {
				s.fault("server", stream, errors.New("the first message comes twice"))
			}
		}
		if err := t.send(p); err != nil {
			return err
		}
	}
}

// run is the client's side of all streams but the last. Each must end within the limit.
func (s *session) run(ctx context.Context, c client) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	var all sync.WaitGroup
	for i := range len(s.plan) - 1 {
		all.Go(func() {
			err := s.converse(ctx, c, uint32(i), false)
			s.mu.Lock()
			defer s.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				s.wrong = append(s.wrong, fmt.Errorf("client, stream %d: hangs: %w", i, err))
			case err != nil:
				s.broken++
			case !s.ended[i]:
				s.wrong = append(s.wrong, fmt.Errorf("client, stream %d: a clean end that the server does not know of", i))
			default:
				s.clean++
			}
		})
	}
	all.Wait()
}

// again runs the last stream, whose connection has no fault.
func (s *session) again(ctx context.Context, c client) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	last := uint32(len(s.plan) - 1)
	if err := s.converse(ctx, c, last, true); err != nil {
		s.fault("client", last, fmt.Errorf("when the path is whole again: %w", err))
	}
}

// converse opens a stream, sends all of its messages, and receives them. Nil is a clean end.
func (s *session) converse(ctx context.Context, c client, stream uint32, wait bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := c.open(ctx, s.id, stream, wait)
	if err != nil {
		return err
	}
	var sending sync.WaitGroup
	sending.Go(func() { // ends with the stream
		sizes := s.plan[stream]
		for n, size := range sizes {
			if t.send(makeMessage(s.id, stream, n, len(sizes), size)) != nil {
				return // receive tells why
			}
		}
		_ = t.closeSend()
	})
	defer sending.Wait()
	h := half{session: s.id, stream: stream, sizes: s.plan[stream]}
	for {
		p, err := t.receive()
		if err == io.EOF {
			if err = h.end(); err != nil {
				s.fault("client", stream, err)
			}
			return err
		}
		if err != nil {
			cancel() // the sender, if it does not know
			return err
		}
		if err := h.take(p); err != nil {
			s.fault("client", stream, err)
			cancel()
			return err
		}
	}
}

// settle waits until the handlers of the session have ended.
func (s *session) settle() error {
	done := make(chan struct{})
	go func() { // ends with the handlers
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(s.limit):
		return errors.New("a handler still runs")
	}
}
