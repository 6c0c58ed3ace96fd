package pool

import (
	"fmt"
	"testing"
)

var benchSizes = []int{64, 1 << 10, 64 << 10, 1 << 20}

func BenchmarkNewRelease(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				New(n).Release()
			}
		})
	}
}

// A burst is what a reader does: many messages carved by one arena, released
// later by whoever took them.
func BenchmarkBurst(b *testing.B) {
	for _, n := range []int{64, 1 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for i := 0; i < b.N; i += 100 {
				a := GetArena()
				var q Queue
				for range 100 {
					q.Push(a.Copy(p))
				}
				PutArena(a)
				q.Release()
			}
		})
	}
}

func BenchmarkCopy(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.ReportAllocs()
			b.SetBytes(int64(n))
			for b.Loop() {
				Copy(p).Release()
			}
		})
	}
}

func BenchmarkMessageOf(b *testing.B) {
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		MessageOf(p).Release()
	}
}

func BenchmarkShare(b *testing.B) {
	m := New(64)
	defer m.Release()
	b.ReportAllocs()
	for b.Loop() {
		m.Share().Release()
	}
}

func BenchmarkQueue(b *testing.B) {
	m := New(64)
	defer m.Release()
	var q Queue
	b.ReportAllocs()
	for b.Loop() {
		q.Push(m)
		q.Pop()
	}
}
