package native

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// dataIn reads input in pieces cut at the given places, and returns what data
// there was, a line each. It asks for more of the same stream after each whole message, if
// run does.
func dataIn(s *Session, input []byte, cuts []int, run func(p []byte, id uint64, a *pool.Arena, q *pool.Queue) int) (all []string, err error) {
	a := pool.GetArena()
	defer pool.PutArena(a)
	var f frame.Frame
	for i, from := range append([]int{0}, cuts...) {
		to := len(input)
		if i < len(cuts) {
			to = cuts[i]
		}
		for p := input[from:to]; ; {
			n, err := s.Next(p, &f)
			if err != nil {
				return all, err
			}
			if p = p[n:]; f.Kind == frame.None {
				break
			}
			if f.Kind != frame.Data { // what is not of its kind is left from before
				all = append(all, fmt.Sprintf("%d %d", f.Stream, f.Kind))
				continue
			}
			all = append(all, fmt.Sprintf("%d %v %v %v %d %x", f.Stream, f.First, f.Last, f.Packed, f.Kind, f.Payload))
			if run != nil && f.First && f.Last {
				var q pool.Queue
				p = p[run(p, f.Stream, a, &q):]
				for m, ok := q.Pop(); ok; m, ok = q.Pop() {
					all = append(all, fmt.Sprintf("%d true true %v %d %x", f.Stream, pool.IsPacked(m), frame.Data, m.Bytes()))
					if pool.Cost(m) != m.Len()+overhead {
						return all, fmt.Errorf("a message of %d bytes costs %d", m.Len(), pool.Cost(m))
					}
					m.Release()
				}
			}
		}
	}
	return all, nil
}

func TestARunIsWhatNextWouldGive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checked := rapid.Bool().Draw(t, "checked")
		sessions := [4]*Session{}
		for i := range sessions {
			sessions[i] = New(rapid.SampledFrom([]int{1 << 10, DefaultMaxFragment}).Draw(t, "largest"))
			if checked {
				sessions[i].SetChecksum(true)
			}
		}
		var o frame.Out
		sizes := rapid.SampledFrom([]int{0, 1, 64, 1000, 1 << 10, wholeMax, wholeMax + 1, 20_000})
		for range rapid.IntRange(1, 40).Draw(t, "frames") {
			id := rapid.SampledFrom([]uint64{1, 1, 1, 1, 2, 3}).Draw(t, "stream")
			if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
				sessions[0].Control(&o, &frame.Frame{Kind: frame.Credit, Stream: id, Value: 77})
				continue
			}
			var run pool.Queue
			for i := range rapid.IntRange(1, 5).Draw(t, "messages") {
				m := pool.New(sizes.Draw(t, "size"))
				for j := range m.Bytes() {
					m.Bytes()[j] = byte(i + j)
				}
				if i == 3 {
					pool.MarkPacked(m)
				}
				run.Push(m)
			}
			if rapid.IntRange(0, 3).Draw(t, "form") == 0 {
				run = bundles(t, id)
			}
			sessions[0].Messages(&o, id, run)
		}
		sessions[0].Flush(&o)
		input := slices.Concat(o.Vec(nil)...)
		o.Reset()
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(input)), 0, 6).Draw(t, "cuts")
		slices.Sort(cuts)
		want, wantErr := dataIn(sessions[1], input, cuts, nil)
		for name, with := range map[string]*Session{"runs": sessions[2], "bundles": sessions[3]} {
			with.reader.maxFragment = sessions[1].reader.maxFragment
			run := with.Run
			if name == "bundles" {
				run = func(p []byte, id uint64, a *pool.Arena, q *pool.Queue) int {
					n := with.RunBundles(p, id, q)
					return n + with.Run(p[n:], id, a, q)
				}
			}
			got, gotErr := dataIn(with, input, cuts, run)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !slices.Equal(got, want) {
				t.Fatalf("with %s %d events, %v; one by one %d, %v", name, len(got), gotErr, len(want), wantErr)
			}
			at, in := sessions[1].Begun()
			if at2, in2 := with.Begun(); at2 != at || in2 != in {
				t.Fatalf("with %s a frame has begun at %d (%v), one by one at %d (%v)", name, at2, in2, at, in)
			}
		}
	})
}

// bundles returns small messages as they are encoded ahead.
func bundles(t *rapid.T, id uint64) (q pool.Queue) {
	p := make([]byte, pool.BundleMost)
	for i := range p {
		p[i] = byte(i)
	}
	size := rapid.SampledFrom([]int{0, 1, 64, pool.BundleMost})
	for range rapid.SampledFrom([]int{1, 3, 100, 600}).Draw(t, "small ones") {
		n := size.Draw(t, "size")
		q.PushFrame(header(n, tData, id), p[:n], n+overhead)
	}
	return q
}
