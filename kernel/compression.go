package kernel

import (
	"fmt"

	"github.com/sluicerpc/sluice/pool"
)

// A Compression says how messages are compressed on their way: those of a stream by
// StreamOptions.Compression, a call's request by CallOptions.Compression, and one message by
// its SetCompression, which comes before its stream's. Each side chooses for what it sends,
// among what its peer has said in the handshake that it unpacks.
//
// Messages of less than 128 bytes, and those that would not get shorter, are sent as they
// are, and so are requests and replies that fit into an open and its acceptance
// (frame.Caps.MaxInline). The reader gets what was sent, at most Limits.MaxMessage bytes. A
// compressed message takes credit for its compressed bytes.
type Compression = pool.Compression

// The compressions. The zero value leaves the choice to the more general option.
const (
	NoCompression = pool.NoCompression
	Gzip          = pool.Gzip
	Zstd          = pool.Zstd // takes less time than gzip
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
func (c *Conn) checkCompression(z Compression, call bool) error {
	switch {
	case z <= NoCompression || c.unpacks(call).Has(z):
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
	r.Compression = NoCompression
	return &r
}

// checkCompression returns ErrNotSupported if none of ps can do what o asks for.
func (o *StreamOptions) checkCompression(ps []Protocol) error {
	if o.Compression <= NoCompression {
		return nil
	}
	for _, p := range ps {
		if caps := p.Caps(); (caps.Compression | caps.CallCompression).Has(o.Compression) {
			return nil
		}
	}
	return fmt.Errorf("%w: no protocol of these options carries messages compressed with %s", ErrNotSupported, o.Compression)
}
