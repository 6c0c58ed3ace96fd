package triple

import (
	"strings"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/pool"
)

// An encoding is how the messages of one direction of a stream can be compressed.
type encoding uint8

const (
	identity encoding = iota
	encGzip
	encZstd
)

// acceptEncoding is what we accept, by its names.
const acceptEncoding = "gzip,zstd"

func encodingOf(name string) (encoding, bool) {
	switch name {
	case "", "identity":
		return identity, true
	case "gzip":
		return encGzip, true
	case "zstd":
		return encZstd, true
	}
	return identity, false
}

func (e encoding) compression() pool.Compression {
	switch e {
	case encGzip:
		return pool.Gzip
	case encZstd:
		return pool.Zstd
	}
	return pool.NoCompression
}

// accepts is what a grpc-accept-encoding names of what we know.
func accepts(v string) (set pool.Compressions) {
	for v != "" {
		var name string
		name, v, _ = strings.Cut(v, ",")
		if e, known := encodingOf(strings.TrimSpace(name)); known && e != identity {
			set |= pool.CompressionsOf(e.compression())
		}
	}
	return set
}

// minPacked is the shortest message that is compressed.
const minPacked = 128

// Pack implements frame.Session.
func (*Session) Pack(m pool.Message, c pool.Compression) pool.Message {
	if m.Len() < minPacked {
		return m
	}
	p := compress.Pack(c, nil, m.Bytes())
	if p.IsZero() {
		return m
	}
	pool.MarkPacked(p)
	return p
}

// Unpack implements frame.Session. Which compression it is a message's first bytes tell: the
// stream, whose headers have named it, may be gone.
func (*Session) Unpack(_ uint64, m pool.Message, most int) (pool.Message, error) {
	defer m.Release()
	u, err := compress.Expand(m.Bytes(), most)
	if err == compress.ErrTooLong { //nolint:errorlint // never wrapped
		err = frame.ErrUnpacked
	}
	return u, err
}
