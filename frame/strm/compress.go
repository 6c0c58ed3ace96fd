package strm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"

	zip "github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/pool"
)

// Values of compress_type.
const (
	compressNone   = 0
	compressSnappy = 1
	compressGzip   = 2
	compressZlib   = 3
)

// compressNames are what the metadata calls them.
var compressNames = []string{compressNone: "none", compressSnappy: "snappy", compressGzip: "gzip", compressZlib: "zlib"}

// Values of checksum_type.
const (
	checksumNone   = 0
	checksumCRC32C = 1
)

var checksumNames = []string{checksumNone: "none", checksumCRC32C: "crc32c"}

// contentNames are the values of content_type.
var contentNames = []string{"pb", "json", "proto-json", "proto-text"}

// nameOf is the name of a value, "unknown" for one that we don't know.
func nameOf(names []string, v int32) string {
	if v >= 0 && int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

var errUnknownCompress = errors.New("unknown compression")

// errTooLong: the message is longer than the limit.
var errTooLong = errors.New("too long when decompressed")

// Compressors hold some hundred KiB each, so they are pooled.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	zlibWriters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
)

// compress appends p, compressed, to b.
func compress(b []byte, kind int32, p []byte) ([]byte, error) {
	switch kind {
	case compressSnappy:
		return append(b, snappy.Encode(nil, p)...), nil
	case compressGzip:
		return deflate(b, p, &gzipWriters)
	case compressZlib:
		return deflate(b, p, &zlibWriters)
	}
	return b, errUnknownCompress
}

// minPacked is the shortest message that an option of its call compresses.
const minPacked = 128

// Pack implements frame.Session, for the messages of calls.
func (*Session) Pack(m pool.Message, _ pool.Compression) pool.Message {
	if m.Len() < minPacked {
		return m
	}
	p := zip.Pack(pool.Gzip, nil, m.Bytes())
	if p.IsZero() {
		return m
	}
	pool.MarkPacked(p)
	return p
}

// A deflater is a compressor that can be reused.
type deflater interface {
	io.WriteCloser
	Reset(w io.Writer)
}

func deflate(b, p []byte, pool *sync.Pool) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	w := pool.Get().(deflater)
	w.Reset(buf)
	_, err := w.Write(p)
	if err == nil {
		err = w.Close()
	}
	w.Reset(nil)
	pool.Put(w)
	return buf.Bytes(), err
}

// decompress returns what p holds, at most most bytes, with capacity for spare bytes
// more. It allocates nothing for what would be longer.
func decompress(kind int32, p []byte, most, spare int) ([]byte, error) {
	switch kind {
	case compressSnappy:
		return unsnappy(p, most, spare)
	case compressGzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(p)); err != nil {
			return nil, err
		}
		return inflate(r, len(p), most, spare)
	case compressZlib:
		src := bytes.NewReader(p)
		r, err := zlib.NewReader(src)
		if err != nil {
			return nil, err
		}
		b, err := inflate(r, len(p), most, spare)
		if err == nil && src.Len() > 0 {
			err = fmt.Errorf("%d bytes after the end", src.Len())
		}
		return b, err
	}
	return nil, errUnknownCompress
}

func unsnappy(p []byte, most, spare int) ([]byte, error) {
	n, err := snappy.DecodedLen(p)
	switch {
	case err != nil:
		return nil, err
	case n > most:
		return nil, errTooLong
	case n > snappyRatio*len(p):
		return nil, snappy.ErrCorrupt
	}
	b, err := snappy.Decode(make([]byte, n, n+spare), p)
	return b, err
}

// snappyRatio is more than a byte of snappy can expand to: a copy of 64 bytes takes two.
// Input that announces more is not snappy, and nothing is allocated for it.
const snappyRatio = 64

// inflate reads all of r into memory that grows with what was read.
func inflate(r io.ReadCloser, hint, most, spare int) ([]byte, error) {
	b := make([]byte, 0, min(4*hint+64, most+1)+spare)
	for {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(2*cap(b), most+1+spare)), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > most:
			return nil, errTooLong
		case errors.Is(err, io.EOF):
			return b, r.Close()
		case err != nil:
			return nil, err
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is checksum_value over the pieces: a CRC32C that is masked, so that
// data with checksums inside has no weak ones.
func checksum(pieces ...[]byte) [4]byte {
	crc := uint32(0)
	for _, p := range pieces {
		crc = crc32.Update(crc, castagnoli, p)
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], (crc>>15|crc<<17)+0xa282ead8)
	return b
}
