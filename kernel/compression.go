package kernel

import (
	"fmt"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// unpacks is how messages to the peer can be compressed, those of a call or of a stream.
func (c *Conn) unpacks(call bool) pool.Compressions {
	set := c.caps.Compression & c.c.PeerSettings().Compression
	if call {
		set |= c.caps.CallCompression
	}
	return set
}

// unpacks is how messages to the peer that has made the offer can be compressed.
func (o *Offer) unpacks() pool.Compressions {
	if o.conn.caps.StreamCompression {
		return o.peerUnpacks & o.conn.caps.Compression
	}
	return o.conn.unpacks(o.Unary())
}

// checkCompression returns why such messages can't be compressed by z, or nil. set is how
// the peer unpacks them.
func (c *Conn) checkCompression(z pool.Compression, set pool.Compressions) error {
	switch {
	case z <= pool.NoCompression || set.Has(z):
		return nil
	case c.caps.Compression.Has(z):
		return fmt.Errorf("%w: the peer unpacks no %s", ErrNotSupported, z)
	}
	return fmt.Errorf("%w: %s carries nothing that is compressed with %s there", ErrNotSupported, c.protocol, z)
}

// named returns the one compression that an open or answer names, for a stream's messages
// and for its first one.
func (c *Conn) named(z, first pool.Compression) (pool.Compression, error) {
	switch {
	case first <= pool.NoCompression:
		return z, nil
	case z > pool.NoCompression && z != first && c.caps.StreamCompression:
		return z, fmt.Errorf("%w: %s compresses the messages of a stream in one way, not by %s and %s", ErrNotSupported, c.protocol, z, first)
	}
	return first, nil
}

// streamDefaults are the options of streams, or calls, for which none are given. A
// compression is left out if the peer does not unpack it: set is what it does.
func (c *Conn) streamDefaults(set pool.Compressions) *StreamOptions {
	d := &c.endpoint.stream
	if c.checkCompression(d.Compression, set) == nil {
		return d
	}
	r := *d
	r.Compression = pool.NoCompression
	return &r
}

// checkCompression returns ErrNotSupported if none of ps can do what o asks for.
func (o *StreamOptions) checkCompression(ps []frame.Protocol) error {
	if o.Compression <= pool.NoCompression {
		return nil
	}
	for _, p := range ps {
		if caps := p.Caps(); (caps.Compression | caps.CallCompression).Has(o.Compression) {
			return nil
		}
	}
	return fmt.Errorf("%w: no protocol of these options carries messages compressed with %s", ErrNotSupported, o.Compression)
}
