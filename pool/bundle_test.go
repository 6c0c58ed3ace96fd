package pool

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// overheadHere is what a message of these tests costs beside its length.
const overheadHere = 32

// frameOf is p behind its word.
func frameOf(p []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, wordOf(p)), p...)
}

func wordOf(p []byte) uint64 { return uint64(len(p)) | 77<<32 }

// A queue with bundles in it is a queue of their messages, whatever is done with it.
func TestBundlesAreTheirMessages(t *testing.T) {
	noneLost(t)
	rapid.Check(t, func(t *rapid.T) {
		var q, r Queue
		var model, taken [][]byte // what is in q, and in r
		seed := byte(0)
		content := func(t *rapid.T) []byte {
			seed++
			return bytes.Repeat([]byte{seed}, rapid.SampledFrom([]int{0, 1, 40, 64, 300, BundleMost}).Draw(t, "size"))
		}
		check := func(t *rapid.T, q *Queue, model [][]byte) {
			n, cost, i := 0, 0, 0
			q.Each(func(m Message) {
				ps := [][]byte{}
				if IsBundle(m) {
					ps = AppendBundle(ps, m)
					if len(ps) != Messages(m) || len(ps) == 0 {
						t.Fatalf("a bundle says it has %d messages, and has %d", Messages(m), len(ps))
					}
				} else {
					ps = append(ps, m.Bytes())
				}
				for _, p := range ps {
					if i >= len(model) || !bytes.Equal(p, model[i]) {
						t.Fatalf("message %d is not what it should be", i)
					}
					i++
				}
			})
			for _, p := range model {
				n += len(p)
				cost += len(p) + overheadHere
			}
			if i != len(model) || q.Len() != i || q.Bytes() != n || q.Cost() != cost {
				t.Fatalf("%d messages, %d bytes, cost %d; want %d, %d, %d", q.Len(), q.Bytes(), q.Cost(), len(model), n, cost)
			}
		}
		push := func(q *Queue, p []byte) {
			m := Copy(p)
			SetCost(m, len(p)+overheadHere)
			q.Push(m)
		}
		t.Repeat(map[string]func(*rapid.T){
			"encode": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 2, 50}).Draw(t, "messages") {
					p := content(t)
					q.PushFrame(wordOf(p), p, len(p)+overheadHere)
					model = append(model, p)
				}
			},
			"message": func(t *rapid.T) {
				p := content(t)
				push(&q, p)
				model = append(model, p)
			},
			"arrive": func(t *rapid.T) {
				var wire []byte
				var ps [][]byte
				for len(wire) < BundleLeast || rapid.IntRange(0, 40).Draw(t, "end") > 0 && len(wire) < 20_000 {
					p := content(t)
					ps = append(ps, p)
					wire = append(wire, frameOf(p)...)
				}
				for len(wire) >= BundleLeast {
					before := q.Len()
					n := q.PushFrames(wire, overheadHere)
					if tail := q.tail.block; n == 0 || tail.used < len(tail.data)-BundleMost-wordSize {
						t.Fatalf("%d bytes of %d were taken, into %d", n, len(wire), len(tail.data))
					}
					k := q.Len() - before
					wire, model, ps = wire[n:], append(model, ps[:k]...), ps[k:]
				}
			},
			"pop": func(t *rapid.T) {
				m, ok := q.Pop()
				if ok != (len(model) > 0) {
					t.Fatalf("Pop says %v of %d messages", ok, len(model))
				}
				if !ok {
					return
				}
				if !bytes.Equal(m.Bytes(), model[0]) || IsBundle(m) || Cost(m) != len(model[0])+overheadHere {
					t.Fatalf("popped %d bytes that cost %d, want %d", m.Len(), Cost(m), len(model[0]))
				}
				m.Release()
				model = model[1:]
			},
			"pop a bundle": func(t *rapid.T) {
				m, ok := q.PopBundle()
				if !ok {
					return
				}
				n := Messages(m)
				var one Queue
				one.Push(m)
				check(t, &one, model[:n])
				one.Release()
				model = model[n:]
			},
			"take": func(t *rapid.T) {
				room := rapid.SampledFrom([]int{0, 31, 32, 100, 1000, 30_000, 1 << 20}).Draw(t, "room")
				first := 0
				if len(model) > 0 {
					first = len(model[0]) + overheadHere
				}
				got := q.Take(room, 1<<20)
				if got.Cost() > room || got.Len() == 0 && len(model) > 0 && first <= room {
					t.Fatalf("took messages that cost %d with room for %d, the first costs %d", got.Cost(), room, first)
				}
				taken, model = append(taken, model[:got.Len()]...), model[got.Len():]
				r.Append(&got)
			},
			"": func(t *rapid.T) { check(t, &q, model); check(t, &r, taken) },
		})
		q.Release()
		r.Release()
	})
}
