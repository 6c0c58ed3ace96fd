package actor

import (
	"context"

	"github.com/sluicerpc/sluice/pool"
)

// SendCopy sends a copy of p, as Send would: p stays the caller's. A small message is encoded at
// once, behind those that wait, and is a message of its own for nobody.
func (s *Stream) SendCopy(ctx context.Context, p []byte) error {
	s.mu.Lock()
	if s.encode(p) {
		s.unlock()
		return nil
	}
	s.mu.Unlock()
	m := pool.Copy(p)
	err := s.Send(ctx, m)
	if err != nil {
		m.Release()
	}
	return err
}

// encode accepts a copy of p in a bundle, if it can be: see pool.Queue.PushFrame.
func (s *Stream) encode(p []byte) bool {
	cfg, n := s.cfg, len(p)
	if n > pool.BundleMost || cfg.Caps.Bundles == 0 || n > cfg.MaxSend || n > cfg.Caps.MaxFragment || cfg.Compression > pool.NoCompression ||
		!s.sends() || !s.hasCredit() || s.awaitsAnswer() {
		return false
	}
	id := s.link.ID()
	if id == 0 {
		return false
	}
	cost := cfg.Caps.Cost(n)
	s.out.PushFrame(uint64(n)|uint64(cfg.Caps.Bundles)<<24|id<<32, p, cost)
	s.requeueOne(cost)
	if s.ch != nil {
		s.withdrawSlot(s.ch)
	}
	return true
}
