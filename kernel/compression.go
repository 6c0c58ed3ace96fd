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

// checkCompression returns why such messages can't be compressed by z, or nil.
func (c *Conn) checkCompression(z pool.Compression, call bool) error {
	switch {
	case z <= pool.NoCompression || c.unpacks(call).Has(z):
		return nil
	case c.caps.Compression.Has(z):
		return fmt.Errorf("%w: the peer unpacks no %s", ErrNotSupported, z)
	}
	return fmt.Errorf("%w: %s carries nothing that is compressed with %s there", ErrNotSupported, c.protocol, z)
}

// streamDefaults are the options of streams, or calls, for which none are given. A
// compression is left out if the peer does not unpack it.
func (c *Conn) streamDefaults(call bool) *StreamOptions {
	d := &c.endpoint.stream
	if c.checkCompression(d.Compression, call) == nil {
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
