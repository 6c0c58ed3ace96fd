package actor

import (
	"fmt"

	"github.com/sluicerpc/sluice/pool"
)

// compression is how m is to be compressed.
func (s *Stream) compression(m pool.Message) pool.Compression {
	if c := pool.CompressionOf(m); c != 0 {
		return c
	}
	return s.cfg.Compression
}

// packs reports whether m has to go through pack before it is accepted.
func (s *Stream) packs(m pool.Message) bool { return s.compression(m) > pool.NoCompression }

// pack returns what is sent for m: m compressed, or m. Compressing takes long, so a sender
// does it, before m is accepted, and never the party that writes the connection. The lock is
// held, and free meanwhile. m stays the caller's: see sent.
func (s *Stream) pack(m pool.Message) (pool.Message, error) {
	if err := s.check(m); err != nil {
		return m, err
	}
	return s.packChecked(m)
}

// packChecked is pack for a message that may be sent. The error is ErrNotSupported.
func (s *Stream) packChecked(m pool.Message) (pool.Message, error) {
	c := s.compression(m)
	if !s.cfg.Unpacks.Has(c) {
		return m, fmt.Errorf("%w: the peer unpacks no %s", ErrNotSupported, c)
	}
	s.unlock()
	defer s.mu.Lock() // also if it panics: its caller unlocks
	return s.link.Pack(m, c), nil
}

// sent releases what is left when p was sent for m, or was not, with err: a sender still
// owns m then.
func sent(m, p pool.Message, err error) error {
	switch {
	case p == m:
	case err == nil:
		m.Release()
	default:
		p.Release()
	}
	return err
}
