package pool

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// reused returns a message that was released, and the holder of the memory that was its own.
func reused(t *testing.T, n int) (stale, holder Message) {
	for range 1000 {
		stale = New(n)
		stale.Release()
		for range blockSpans {
			m := New(n)
			if m.s == stale.s {
				return stale, m
			}
			m.Release()
		}
	}
	t.Skip("memory is not used again")
	return
}

// A handle that is void does nothing to who has its memory by then: releasing it again is
// without effect, and any other use panics where it happens.
func TestAVoidHandleHarmsNobody(t *testing.T) {
	if checked {
		t.Skip("checked builds don't use memory again")
	}
	uses := map[string]struct {
		do     func(m Message)
		silent bool
	}{
		"release": {Message.Release, true}, "forget": {Forget, true},
		"bytes":       {func(m Message) { clear(m.Bytes()) }, false},
		"share":       {func(m Message) { m.Share() }, false},
		"clone":       {func(m Message) { m.Clone() }, false},
		"truncate":    {func(m Message) { m.Truncate(0) }, false},
		"compression": {func(m Message) { m.SetCompression(Gzip) }, false},
		"take over": {func(m Message) {
			if _, ok := TakeOver(m); ok {
				t.Error("it was taken over")
			}
		}, true},
	}
	for _, n := range []int{64, 8 << 10} {
		for name, use := range uses {
			stale, holder := reused(t, n)
			want := bytes.Repeat([]byte("x"), n)
			copy(holder.Bytes(), want)
			refs := holder.s.block.refs.Load()
			r := panics(func() { use.do(stale) })
			if (r == nil) != use.silent || r != nil && !strings.Contains(fmt.Sprint(r), "after its release") {
				t.Errorf("%s of %d bytes: panic %v", name, n, r)
			}
			if got := holder.s.block.refs.Load(); got != refs || CompressionOf(holder) != 0 {
				t.Errorf("%s of %d bytes: the block has %d references, had %d", name, n, got, refs)
			}
			if r := panics(func() {
				if !bytes.Equal(holder.Bytes(), want) {
					t.Errorf("%s of %d bytes: the holder's changed", name, n)
				}
			}); r != nil {
				t.Errorf("%s of %d bytes: its holder panics: %v", name, n, r)
			}
			holder.Release()
		}
	}
}

// Who takes a message over is its only owner.
func TestTakingOverVoidsTheOldHandle(t *testing.T) {
	noneLost(t)
	m := Copy([]byte("mine"))
	taken, ok := TakeOver(m)
	if !ok || IsLive(m) || !IsLive(taken) || string(taken.Bytes()) != "mine" {
		t.Errorf("taken %v, old handle live %v, new one %v", ok, IsLive(m), IsLive(taken))
	}
	if _, ok := TakeOver(m); ok {
		t.Error("it was taken over twice")
	}
	taken.Release()
	if zero, ok := TakeOver(Message{}); !ok || !zero.IsZero() {
		t.Error("the zero Message can't be taken over")
	}
}
