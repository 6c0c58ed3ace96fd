// Package compress compresses messages, and bounds what they take when they are
// decompressed.
package compress

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/sluicerpc/sluice/pool"
)

// All is what this package knows.
var All = pool.CompressionsOf(pool.Gzip, pool.Zstd)

// Errors of Unpack.
var (
	ErrUnknown   = errors.New("an unknown compression")
	ErrLength    = errors.New("a compressed message that holds more or less than it says")
	ErrTruncated = errors.New("a compressed message that ends too early")
	ErrTooLong   = errors.New("a compressed message that holds more than is taken")
)

// workers is how many messages are worked on at once. Each holds a compressor or
// decompressor of up to 1 MiB; more of them would not be faster.
var workers = make(chan struct{}, min(runtime.GOMAXPROCS(0), 16))

// The garbage collector empties these when nobody compresses.
var (
	gzipWriters = sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // it fails for an unknown level alone
		return w
	}}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zstdWriters = sync.Pool{New: func() any {
		w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(512<<10), zstd.WithEncoderCRC(false))
		return w
	}}
)

// zstdReader decompresses for all, as many as workers at once. It is made here, because
// its channel must not belong to a synctest bubble that asks first.
var zstdReader, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(cap(workers)), zstd.WithDecoderLowmem(true),
	zstd.WithDecodeAllCapLimit(true))

// A writer is a compressor that can be used again. With no writer it holds on to nothing.
type writer interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// Pack returns head and, behind it, p compressed. It returns the zero Message if that does
// not save a sixteenth of p.
func Pack(c pool.Compression, head, p []byte) pool.Message {
	var writers *sync.Pool
	switch c {
	case pool.Gzip:
		writers = &gzipWriters
	case pool.Zstd:
		writers = &zstdWriters
	default:
		return pool.Message{}
	}
	most := len(p) - len(p)/16 - 1
	if most < len(head) {
		return pool.Message{}
	}
	m := pool.New(most)
	out := output{p: m.Bytes(), n: copy(m.Bytes(), head)}
	if !deflate(writers, &out, p) {
		m.Release()
		return pool.Message{}
	}
	if 2*out.n > most { // else much of the memory would be kept for nothing
		m.Truncate(out.n)
		return m
	}
	r := pool.Copy(out.p[:out.n])
	m.Release()
	return r
}

// deflate reports whether p, compressed, fits into out.
func deflate(writers *sync.Pool, out *output, p []byte) bool {
	workers <- struct{}{}
	defer func() { <-workers }()
	w := writers.Get().(writer)
	w.Reset(out)
	_, err := w.Write(p)
	if err == nil {
		err = w.Close()
	}
	w.Reset(nil)
	writers.Put(w)
	return err == nil
}

// output is memory that is filled from its start.
type output struct {
	p []byte
	n int
}

var errFull = errors.New("no gain")

func (o *output) Write(p []byte) (int, error) {
	if len(p) > len(o.p)-o.n {
		return 0, errFull
	}
	o.n += copy(o.p[o.n:], p)
	return len(p), nil
}

// The most that a byte can expand to: deflate repeats 258 bytes with two bits, zstd
// 128 KiB with four bytes.
const (
	gzipRatio = 1032
	zstdRatio = 32 << 10
)

// Unpack returns what p holds, which must be total bytes. A total that p can't hold
// allocates nothing.
func Unpack(c pool.Compression, p []byte, total int) (pool.Message, error) {
	var ratio int
	var inflate func(dst, p []byte) error
	switch c {
	case pool.Gzip:
		ratio, inflate = gzipRatio, gunzip
	case pool.Zstd:
		ratio, inflate = zstdRatio, unzstd
	default:
		return pool.Message{}, ErrUnknown
	}
	if total/ratio > len(p) {
		return pool.Message{}, ErrLength
	}
	m := pool.New(total)
	workers <- struct{}{}
	err := inflate(m.Bytes(), p)
	<-workers
	if err != nil {
		m.Release()
		return pool.Message{}, err
	}
	return m, nil
}

// Expand returns what p holds, at most most bytes, where nothing says how much that is.
// Which compression it is p's first bytes tell. ErrTooLong says that it holds more.
func Expand(p []byte, most int) (pool.Message, error) {
	workers <- struct{}{}
	defer func() { <-workers }()
	switch {
	case len(p) == 0:
		return pool.Message{}, nil
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(p)); err != nil {
			return pool.Message{}, early(err)
		}
		return readAll(r, 4*len(p), most)
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return expandZstd(p, most)
	}
	return pool.Message{}, ErrUnknown
}

// readAll reads r into memory that grows with what was read, at first for guess bytes.
func readAll(r io.Reader, guess, most int) (pool.Message, error) {
	m := pool.New(min(guess, most) + 1)
	n := 0
	for {
		k, err := r.Read(m.Bytes()[n:])
		n += k
		switch {
		case n > most:
			m.Release()
			return pool.Message{}, ErrTooLong
		case errors.Is(err, io.EOF):
			m.Truncate(n)
			return m, nil
		case err != nil:
			m.Release()
			return pool.Message{}, early(err)
		}
		if n == m.Len() {
			more := pool.New(min(2*n, most) + 1)
			copy(more.Bytes(), m.Bytes()[:n])
			m.Release()
			m = more
		}
	}
}

func expandZstd(p []byte, most int) (pool.Message, error) {
	d, err := zstd.NewReader(bytes.NewReader(p), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return pool.Message{}, err
	}
	defer d.Close()
	return readAll(d, 4*len(p), most)
}

// gunzip fills dst.
func gunzip(dst, p []byte) error {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	err := r.Reset(bytes.NewReader(p))
	if err == nil {
		_, err = io.ReadFull(r, dst)
	}
	if err != nil {
		return early(err)
	}
	var more [1]byte
	switch n, err := io.ReadFull(r, more[:]); {
	case n > 0:
		return ErrLength
	case !errors.Is(err, io.EOF):
		return early(err)
	}
	return nil
}

// unzstd fills dst.
func unzstd(dst, p []byte) error {
	got, err := zstdReader.DecodeAll(p, dst[:0])
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return ErrLength
	case err != nil:
		return early(err)
	case len(got) != len(dst):
		return ErrLength
	}
	if len(got) > 0 && &got[0] != &dst[0] {
		copy(dst, got)
	}
	return nil
}

// early makes an end of the input one that nobody takes for the end of a stream.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}
