package layout

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

type sample struct {
	A int32
	B int64
	C float64
	D uint16
	E bool
}

func byHand(b []byte, v sample) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(v.A))
	b = binary.LittleEndian.AppendUint64(b, uint64(v.B))
	b = binary.LittleEndian.AppendUint64(b, uint64(v.C))
	b = binary.LittleEndian.AppendUint16(b, v.D)
	if v.E {
		return append(b, 1)
	}
	return append(b, 0)
}

func BenchmarkAppend(b *testing.B) {
	v := sample{1, 2, 3, 4, true}
	buf := make([]byte, 0, 64)
	b.Run("layout", func(b *testing.B) {
		c := mustNew[sample](b)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Append(buf, v)
		}
	})
	b.Run("hand", func(b *testing.B) {
		for b.Loop() {
			_ = byHand(buf, v)
		}
	})
	b.Run("encoding/binary", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = binary.Append(buf, binary.LittleEndian, &v)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := byHand(nil, sample{1, 2, 3, 4, true})
	b.Run("layout", func(b *testing.B) {
		c := mustNew[sample](b)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Decode(raw)
		}
	})
	b.Run("encoding/binary", func(b *testing.B) {
		b.ReportAllocs()
		var v sample
		for b.Loop() {
			_, _ = binary.Decode(raw, binary.LittleEndian, &v)
		}
	})
}

func BenchmarkAppendWords(b *testing.B) {
	c := mustNew[long](b)
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Append(buf, long{A: 1})
	}
}

func BenchmarkDecodeStrings(b *testing.B) {
	c := mustNew[[]string](b)
	raw, _ := c.Append(nil, []string{"a", "bc", "def", "ghij"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
