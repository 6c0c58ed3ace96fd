package native

import (
	"encoding/binary"
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/pool"
)

// A compressed message begins with the number of its compression and the length of what it
// holds, two varints. They are a part of the message: they cost credit, and the reader of a
// connection looks at neither.

// minPacked is the shortest message that is compressed: less gains nothing.
const minPacked = 128

// compressions are the numbers on the wire.
var compressions = [...]pool.Compression{1: pool.Gzip, 2: pool.Zstd}

// numberOf is c's number on the wire, 0 if it has none.
func numberOf(c pool.Compression) int {
	for n, known := range compressions {
		if known == c && n > 0 {
			return n
		}
	}
	return 0
}

// compressionBits is the value of the setting: bit n stands for number n.
func compressionBits(set pool.Compressions) (bits uint64) {
	for n, c := range compressions {
		if n > 0 && set.Has(c) {
			bits |= 1 << n
		}
	}
	return bits
}

// compressionsOf is the inverse. It ignores numbers that it does not know.
func compressionsOf(bits uint64) (set pool.Compressions) {
	for n, c := range compressions {
		if n > 0 && bits>>n&1 != 0 {
			set |= pool.CompressionsOf(c)
		}
	}
	return set
}

// Pack implements frame.Session.
func (s *Session) Pack(m pool.Message, c pool.Compression) pool.Message {
	n := numberOf(c)
	if n == 0 || m.Len() < minPacked {
		return m
	}
	var head [2 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(head[:0], uint64(n))
	b = binary.AppendUvarint(b, uint64(m.Len()))
	p := compress.Pack(c, b, m.Bytes())
	if p.IsZero() {
		return m
	}
	pool.MarkPacked(p)
	return p
}

// Unpack implements frame.Session.
func (s *Session) Unpack(_ uint64, m pool.Message, most int) (pool.Message, error) {
	defer m.Release()
	c := cursor{p: m.Bytes()}
	n, total := c.uint(), c.uint()
	switch {
	case c.err != nil:
		return pool.Message{}, fmt.Errorf("a compressed message: %w", c.err)
	case n == 0 || n >= uint64(len(compressions)):
		return pool.Message{}, fmt.Errorf("a message with unknown compression %d", n)
	case total > uint64(most):
		return pool.Message{}, frame.ErrUnpacked
	}
	u, err := compress.Unpack(compressions[n], c.p, int(total))
	if err != nil {
		return pool.Message{}, fmt.Errorf("a message compressed with %s: %w", compressions[n], err)
	}
	return u, nil
}
