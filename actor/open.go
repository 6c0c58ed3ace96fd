package actor

import (
	"context"
	"math"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// SetFirstFrame sets the frame that opens, accepts or refuses the stream. It is written
// before anything else.
func (s *Stream) SetFirstFrame(f *frame.Frame) {
	s.mu.Lock()
	defer s.unlock()
	if s.firstFrame = f; s.st.done {
		s.dropFirstFrame()
		return
	}
	if f.Kind == frame.Accept {
		s.answered = true
		if !f.FollowsData { // else Push comes first, with the reply
			s.allowSends()
		}
	}
	s.requestControl(controlOpen)
}

// dropFirstFrame lets go of a frame that will not be written.
func (s *Stream) dropFirstFrame() {
	if s.firstFrame != nil {
		frame.PutFrame(s.firstFrame)
		s.firstFrame = nil
	}
}

// HoldSends says that the stream is the peer's offer: until it is accepted Send,
// CloseSend and Close fail with ErrNotAccepted, and Out and Writable wait. It is called before
// the stream is shared.
func (s *Stream) HoldSends() { s.sendsHeld = true }

// AllowSends ends that, for a stream that is accepted by another one's first frame.
func (s *Stream) AllowSends() {
	s.mu.Lock()
	defer s.unlock()
	s.allowSends()
}

// AllowEarly says that the peer has opened the stream and may not know our settings yet: it
// begins with what the protocol has without them. It is called before the stream is shared.
func (s *Stream) AllowEarly() {
	w := &s.win
	w.early = uint16(min(max(s.cfg.Caps.EarlyWindow-int(w.size), 0), math.MaxUint16))
}

func (s *Stream) allowSends() {
	if s.sendsHeld {
		s.sendsHeld = false
		s.admitWaiting()
	}
}

// HoldData has data wait for PeerReady. It is called before Accepted.
func (s *Stream) HoldData() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.answered {
		s.makeOutcome().notReady = true
	}
}

// Accepted takes the peer's answer to our open. It reports false if the stream has an
// answer already, or is over. With follows the reply is the first message to arrive.
func (s *Stream) Accepted(reply pool.Message, header metadata.MD, g frame.Grant, follows bool) bool {
	s.mu.Lock()
	defer s.unlock()
	if s.answered || s.st.done {
		reply.Release()
		return false
	}
	if n := reply.Len(); n > s.cfg.MaxReceive {
		reply.Release()
		s.resetTooLarge(n)
		return false
	}
	if !reply.IsZero() || len(header) > 0 {
		oc := s.makeOutcome()
		oc.reply, oc.header = reply, header
	}
	if g.Limit > 0 {
		s.limitWindow(int(min(g.Limit, 1<<30)))
	}
	if g.NoReceive {
		s.peerNoReceive = true
		s.sendOver()
	}
	if follows {
		s.makeOutcome().firstMessage = firstReply
	} else {
		s.markAnswered()
	}
	if !s.cfg.granted() {
		s.requeue() // data may have waited for the answer
		return true
	}
	s.grantSend(g.Credit)
	return true
}

// Establish accepts the stream with its final configuration, and a first window. It returns the
// total that the peer may send, in bytes of credit.
func (s *Stream) Establish(cfg *Config, window int) uint64 {
	s.mu.Lock()
	defer s.unlock()
	s.cfg = cfg
	s.cred.relimit(cfg)
	if cfg.IdleTimeout > 0 && !s.st.done {
		s.makeChannels().idle = newIdler(&s.mu, s.link, cfg.IdleTimeout)
	}
	w := &s.win
	switch {
	case !cfg.granted():
		if cfg.NoReceive {
			s.apply(s.st.closeReceive())
		}
		return 0
	case s.st.retired:
		return w.granted
	case cfg.NoReceive:
		if !cfg.Caps.FixedWindow { // else the peer has it, and what comes is dropped
			s.shrink(0)
			w.most = 0
		}
		s.apply(s.st.closeReceive())
		return w.granted
	}
	w.set(cfg, window)
	if w.taken > 0 { // a message longer than the first credit has begun to arrive
		w.resize(s.link)
	}
	w.granted = max(w.granted, w.taken+uint64(w.size))
	return w.granted
}

// limitWindow limits the window to n: the peer wants to have no more unread here.
func (s *Stream) limitWindow(n int) {
	n = max(n, s.cfg.Caps.MinWindow())
	w := &s.win
	w.most = min(w.most, int32(n))
	if w.size > int32(n) {
		s.shrink(n)
	}
	w.granted = max(min(w.granted, uint64(n)), w.recvd)
}

// Granted is the total that the peer may send, in bytes of credit.
func (s *Stream) Granted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.win.granted
}

// Answer waits for the peer's answer to our open, and returns its reply and header.
func (s *Stream) Answer(ctx context.Context) (pool.Message, metadata.MD, error) {
	s.mu.Lock()
	if !s.answered {
		ch := s.makeChannels()
		if ch.answered == nil {
			ch.answered = make(chan struct{})
		}
		c := ch.answered
		s.unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return pool.Message{}, nil, errtext.Errorf("sluice: stream %d (%s): waiting for the answer: %w",
				s.link.ID(), s.cfg.Method, context.Cause(ctx))
		}
		s.mu.Lock()
	}
	defer s.unlock()
	oc := s.outcome
	if oc == nil {
		return pool.Message{}, nil, nil
	}
	if pool.IsPacked(oc.reply) {
		m, err := s.link.Unpack(oc.reply, s.cfg.MaxReceive)
		if oc.reply = m; err != nil {
			oc.header = nil
			return pool.Message{}, nil, s.spoil(err)
		}
	}
	if oc.failure != nil && oc.reply.IsZero() && oc.header == nil {
		return pool.Message{}, nil, oc.failure
	}
	return oc.reply, oc.header, nil
}
