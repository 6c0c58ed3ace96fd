package pool

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// modelQueue is what a Queue must behave like: a slice of contents.
type modelQueue struct {
	q     Queue
	model [][]byte
}

func (s *modelQueue) push(t tester, p []byte) { s.q.Push(Copy(p)); s.model = append(s.model, p) }

func (s *modelQueue) pop(t tester) {
	m, ok := s.q.Pop()
	if ok != (len(s.model) > 0) {
		t.Fatalf("Pop says %v with %d messages inside", ok, len(s.model))
	}
	if !ok {
		return
	}
	if !bytes.Equal(m.Bytes(), s.model[0]) {
		t.Fatalf("popped %q, want %q", m.Bytes(), s.model[0])
	}
	s.model = s.model[1:]
	m.Release()
}

func (s *modelQueue) check(t tester) {
	sum := 0
	for _, p := range s.model {
		sum += len(p)
	}
	if s.q.Len() != len(s.model) || s.q.Bytes() != sum {
		t.Fatalf("queue says %d messages of %d bytes, model %d of %d", s.q.Len(), s.q.Bytes(), len(s.model), sum)
	}
	head := s.q.Head()
	if head.IsZero() != (len(s.model) == 0) || !head.IsZero() && !bytes.Equal(head.Bytes(), s.model[0]) {
		t.Fatalf("head is %q", head.Bytes())
	}
}

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Fatalf(format string, args ...any)
}

func TestQueueBehavesLikeASlice(t *testing.T) {
	noneLost(t)
	rapid.Check(t, func(t *rapid.T) {
		var a, b modelQueue
		content := rapid.SliceOfN(rapid.Byte(), 0, 40)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) { a.push(t, content.Draw(t, "content")) },
			"push zero": func(t *rapid.T) {
				a.q.Push(Message{})
				a.model = append(a.model, nil)
			},
			"push front": func(t *rapid.T) {
				p := content.Draw(t, "content")
				a.q.PushFront(Copy(p))
				a.model = append([][]byte{p}, a.model...)
			},
			"push to the other": func(t *rapid.T) { b.push(t, content.Draw(t, "content")) },
			"pop":               func(t *rapid.T) { a.pop(t) },
			"append": func(t *rapid.T) {
				a.q.Append(&b.q)
				a.model, b.model = append(a.model, b.model...), nil
			},
			"release": func(t *rapid.T) {
				a.q.Release()
				a.model = nil
			},
			"": func(t *rapid.T) { a.check(t); b.check(t) },
		})
		a.q.Release()
		b.q.Release()
	})
}

// Every byte of the input is one operation on one of some live messages; the
// model keeps what each must contain.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{0, 10, 1, 200, 2, 0, 3, 1, 4, 2, 5, 0, 6, 0, 7, 1})
	f.Add([]byte{0, 255, 0, 255, 0, 255, 2, 1, 3, 0, 3, 0, 3, 0, 7, 0, 7, 0})
	f.Add(bytes.Repeat([]byte{0, 64, 7, 0}, 50))
	f.Fuzz(func(t *testing.T, ops []byte) {
		noneLost(t)
		var a Arena
		var live []held
		for i := 0; i+1 < len(ops); i += 2 {
			live = step(t, &a, live, ops[i]%8, int(ops[i+1]), uint32(i))
		}
		for _, h := range live {
			h.check(t)
			h.m.Release()
		}
		a.retire()
	})
}

// held is a message and what it must contain.
type held struct {
	m    Message
	want []byte
}

func (h held) check(t tester) {
	if !bytes.Equal(h.m.Bytes(), h.want) {
		t.Fatalf("a message of %d bytes changed", len(h.want))
	}
}

func step(t tester, a *Arena, live []held, op byte, arg int, seed uint32) []held {
	if op < 3 { // small, around the border, large
		n := []int{arg, smallMax - 128 + arg, arg << 8}[op]
		want := pattern(n, seed)
		return append(live, held{a.Copy(want), want})
	}
	if len(live) == 0 {
		return live
	}
	i := arg % len(live)
	h := live[i]
	h.check(t)
	switch op {
	case 3:
		return append(live, held{h.m.Share(), h.want})
	case 4:
		return append(live, held{h.m.Clone(), h.want})
	case 5:
		live[i].want = h.want[:len(h.want)/2]
		h.m.Truncate(len(h.want) / 2)
	case 6:
		var q Queue
		q.Push(h.m)
		q.PushFront(a.New(0))
		for m, ok := q.Pop(); ok; m, ok = q.Pop() {
			if m != h.m {
				m.Release()
			}
		}
	default:
		h.m.Release()
		return append(live[:i], live[i+1:]...)
	}
	return live
}

func pattern(n int, seed uint32) []byte {
	p := make([]byte, n)
	for i := 0; i+4 <= n; i += 4 {
		binary.LittleEndian.PutUint32(p[i:], seed+uint32(i)*2654435761)
	}
	return p
}

// A queue knows what its messages cost, however they come and go; a message used again
// costs nothing.
func TestAQueueSumsCosts(t *testing.T) {
	var q Queue
	want := 0
	for i := range 10 {
		m := New(i)
		if Cost(m) != 0 {
			t.Fatalf("a new message costs %d", Cost(m))
		}
		SetCost(m, 100+i)
		q.Push(m)
		want += 100 + i
	}
	check := func(what string, q *Queue, want int) {
		t.Helper()
		if q.Cost() != want {
			t.Errorf("%s: the queue costs %d, want %d", what, q.Cost(), want)
		}
	}
	check("ten", &q, want)
	m, _ := q.Pop()
	check("nine", &q, want-100)
	q.PushFront(m)
	check("ten again", &q, want)
	r := q.Take(350, 1<<20) // three of 100, 101 and 102
	check("taken", &r, 303)
	check("left", &q, want-303)
	r.Append(&q)
	check("together", &r, want)
	check("empty", &q, 0)
	r.Release()
	check("released", &r, 0)
	m = New(3)
	if SetCost(m, 7); IsPacked(m) {
		t.Error("a message is packed by itself")
	}
	MarkPacked(m)
	if SetCost(m, 8); !IsPacked(m) || Cost(m) != 8 {
		t.Errorf("packed %v, cost %d", IsPacked(m), Cost(m))
	}
	for what, r := range map[string]Message{"shared": m.Share(), "cloned": m.Clone()} {
		if !IsPacked(r) || Cost(r) != 0 {
			t.Errorf("%s: packed %v, cost %d", what, IsPacked(r), Cost(r))
		}
		r.Release()
	}
	m.Release()
	if Cost(Message{}) != 0 {
		t.Error("a zero Message costs something")
	}
}

// A queue keeps what it holds when it is compacted, in its order, and gives up blocks that little
// else is in. What is in dense blocks, or others have handles of, stays where it is.
func TestCompactedQueuesHoldTheSame(t *testing.T) {
	noneLost(t)
	var a, to Arena
	var kept, dense Queue
	var shared []Message
	want := []string{}
	var sparse []*block
	for i := range 20 {
		for j := range 16 { // a block each
			m := a.New(1000)
			if j > 0 {
				m.Release()
				continue
			}
			copy(m.Bytes(), binary.LittleEndian.AppendUint32(nil, uint32(i)))
			SetCost(m, 100+i)
			m.SetCompression(Gzip)
			if i == 7 {
				shared = append(shared, m.Share())
			}
			want = append(want, string(m.Bytes()))
			sparse = append(sparse, m.s.block)
			kept.Push(m)
		}
	}
	for range 32 {
		dense.Push(a.New(1000))
	}
	a.retire()
	if n := kept.Compact(&to); n != 19 {
		t.Errorf("%d messages were copied, want all but the one that is shared", n)
	}
	if n := dense.Compact(&to); n != 0 {
		t.Errorf("%d messages of dense blocks were copied", n)
	}
	if n := kept.Compact(&to); n != 0 {
		t.Errorf("%d messages were copied again", n)
	}
	in := map[*block]bool{}
	cost := 0
	for i, s := 0, kept.head; s != nil; i, s = i+1, s.next {
		in[s.block] = true
		m := s.handle()
		cost += Cost(m)
		if string(m.Bytes()) != want[i] || Cost(m) != 100+i || CompressionOf(m) != Gzip {
			t.Errorf("message %d: %d bytes, cost %d", i, m.Len(), Cost(m))
		}
	}
	if len(in) > 3 { // 19 times 1,000 bytes, and the shared one
		t.Errorf("20 messages keep %d blocks", len(in))
	}
	if kept.Len() != 20 || kept.Bytes() != 20_000 || kept.Cost() != cost {
		t.Errorf("%d messages, %d bytes, cost %d", kept.Len(), kept.Bytes(), kept.Cost())
	}
	for i, b := range sparse {
		if refs := b.refs.Load(); (refs != 0) != (i == 7) && recycle == false {
			t.Errorf("block %d is held %d times", i, refs)
		}
	}
	kept.Push(New(1)) // behind the last
	for n := kept.Len(); n > 0; n-- {
		m, ok := kept.Pop()
		if !ok {
			t.Fatalf("%d messages are missing", n)
		}
		m.Release()
	}
	dense.Release()
	shared[0].Release()
	to.retire()
}
