package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
)

// A part is what one stream carries: where its bytes are, and how they are cut
// into messages. Sender and checker each walk the same cuts and read the same
// bytes, so that nothing has to be kept in between.
type part struct {
	src  io.ReaderAt
	cuts cuts
}

// cuts yields where each message begins in the source, and how long it is.
type cuts iter.Seq2[int64, int]

// maxMixed is the largest message of mixed cuts.
const maxMixed = 1 << 20

// mixed cuts n bytes from off on into messages of 1 B to 1 MiB, each power of
// two equally likely: most messages are small, and most bytes are in large ones, as in
// practice. The same seed gives the same cuts.
func mixed(off, n int64, seed uint64) cuts {
	return func(yield func(int64, int) bool) {
		rng := rand.New(rand.NewPCG(seed, uint64(off)))
		for at, end := off, off+n; at < end; {
			size := min(int64(math.Exp2(20*rng.Float64())), end-at)
			if !yield(at, int(size)) {
				return
			}
			at += size
		}
	}
}

// even cuts n bytes from off on into messages of size bytes, and a shorter last
// one.
func even(off, n int64, size int) cuts {
	return func(yield func(int64, int) bool) {
		for at, end := off, off+n; at < end; at += int64(size) {
			if !yield(at, int(min(int64(size), end-at))) {
				return
			}
		}
	}
}

// repeated cuts count messages of size bytes, which may be none, from off on.
func repeated(off int64, size, count int) cuts {
	return func(yield func(int64, int) bool) {
		for i := range count {
			if !yield(off+int64(i)*int64(size), size) {
				return
			}
		}
	}
}

// share is the range of total bytes that the i-th of n streams carries.
func share(total int64, i, n int) (off, length int64) {
	each := (total + int64(n) - 1) / int64(n)
	off = min(int64(i)*each, total)
	return off, min(each, total-off)
}

// generated is an endless source of bytes, with its value as the seed. Every eight are
// the output of SplitMix64 for their position, so that any range can be read without
// those before it.
type generated uint64

// ReadAt implements io.ReaderAt.
func (d generated) ReadAt(p []byte, off int64) (int, error) {
	var word [8]byte
	n := 0
	for n < len(p) {
		at := uint64(off) + uint64(n)
		v := splitMix(uint64(d) + at/8)
		if at%8 == 0 && len(p)-n >= 8 {
			binary.LittleEndian.PutUint64(p[n:], v)
			n += 8
			continue
		}
		binary.LittleEndian.PutUint64(word[:], v)
		n += copy(p[n:], word[at%8:])
	}
	return n, nil
}

func splitMix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// openFile opens a regular file and returns its length.
func openFile(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file with a length", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}
