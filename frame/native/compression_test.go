package native

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/pool"
)

// A message that is packed is unpacked by the other side, whatever its compression.
func TestPackedMessagesAreUnpacked(t *testing.T) {
	w, r := pair(false)
	text := strings.Repeat("one of many; ", 1000)
	for _, c := range []pool.Compression{pool.Gzip, pool.Zstd} {
		m := w.Pack(messageOf(text), c)
		if !pool.IsPacked(m) || m.Len() > len(text)/4 {
			t.Fatalf("%s: %d bytes, packed=%t", c, m.Len(), pool.IsPacked(m))
		}
		u, err := r.Unpack(1, m, len(text))
		if err != nil || string(u.Bytes()) != text {
			t.Errorf("%s: %d bytes, %v", c, u.Len(), err)
		}
		u.Release()
	}
	u, err := r.Unpack(1, letters(), 200)
	if err != nil || string(u.Bytes()) != strings.Repeat("a", 200) {
		t.Errorf("%q, %v", u.Bytes(), err)
	}
	u.Release()
}

// Short messages, what does not get shorter and what has no number are sent as they are.
func TestPackLeavesMessages(t *testing.T) {
	w, _ := pair(false)
	for _, c := range []struct {
		m pool.Message
		c pool.Compression
	}{
		{messageOf(strings.Repeat("a", minPacked-1)), pool.Zstd},
		{pool.Message{}, pool.Zstd},
		{messageOf(strings.Repeat("a", 1000)), pool.NoCompression},
		{messageOf(strings.Repeat("a", 1000)), 0},
		{messageOf(strings.Repeat("a", 1000)), 77},
	} {
		if p := w.Pack(c.m, c.c); p != c.m || pool.IsPacked(p) {
			t.Errorf("%d bytes with %s are packed", c.m.Len(), c.c)
		}
	}
}

// Too much is refused by what the message says, before anything is unpacked.
func TestUnpackRefuses(t *testing.T) {
	_, r := pair(false)
	if _, err := r.Unpack(1, letters(), 199); !errors.Is(err, frame.ErrUnpacked) {
		t.Errorf("a byte too much: %v", err)
	}
	for _, p := range []string{"", "\x02", "\x02\xc8", "\x02\x80\x00", "\x00\x05abcde", "\x03\x05abcde", "\xff\xff\xff\xff\x0f\x05abcde", "\x02\x05abcde", "\x01\x05abcde"} {
		if u, err := r.Unpack(1, messageOf(p), 1<<20); err == nil || errors.Is(err, frame.ErrUnpacked) {
			t.Errorf("%q: %d bytes, %v", p, u.Len(), err)
		}
	}
}

// Numbers that only a later program knows are ignored, and the flag means nothing on a
// further fragment.
func TestUnknownCompressionsAreIgnored(t *testing.T) {
	if got := compressionsOf(1<<63 | 1<<7 | 1<<2 | 1); got != pool.CompressionsOf(pool.Zstd) {
		t.Errorf("%b", got)
	}
	if got := compressionsOf(compressionBits(compress.All)); got != compress.All {
		t.Errorf("%b, want %b", got, compress.All)
	}
	_, r := pair(false)
	es, err := read(r, unhex(t, `09 00 00 24 01 00 00 00  06 00 00 00 61 62 63 64 65  01 00 00 c4 01 00 00 00 66`), whole)
	if err != nil || len(es) != 1 || strings.Contains(es[0].head, "packed") || !bytes.Equal(es[0].payload, []byte("abcdef")) {
		t.Errorf("%v, %v", es, err)
	}
}

// FuzzUnpack: whatever a peer sends, what comes out is as long as it says and no longer
// than it may be.
func FuzzUnpack(f *testing.F) {
	w, r := pair(false)
	for _, c := range []pool.Compression{pool.Gzip, pool.Zstd} {
		f.Add(w.Pack(messageOf(strings.Repeat("one of many; ", 50)), c).Bytes(), 1000)
	}
	f.Add(letters().Bytes(), 100)
	f.Fuzz(func(t *testing.T, p []byte, most int) {
		if most < 1 || most > 1<<20 {
			return
		}
		u, err := r.Unpack(1, pool.MessageOf(bytes.Clone(p)), most)
		defer u.Release()
		if err != nil {
			return
		}
		_, n := binary.Uvarint(p)
		if total, _ := binary.Uvarint(p[n:]); u.Len() > most || uint64(u.Len()) != total {
			t.Errorf("%d bytes, said to be %d, at most %d", u.Len(), total, most)
		}
	})
}
