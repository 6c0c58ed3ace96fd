package pool

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestZeroMessageIsEmptyAndHarmless(t *testing.T) {
	var m Message
	m.Release()
	m.Release()
	Forget(m)
	m.Truncate(0)
	OnTouch(m, nil)
	if m.Len() != 0 || m.Bytes() != nil || !m.IsZero() || !m.Share().IsZero() {
		t.Errorf("zero message: %d bytes, %v", m.Len(), m.Bytes())
	}
	if c := m.Clone(); c.Len() != 0 || c.IsZero() {
		t.Errorf("clone of the zero message: %d bytes, zero %v", c.Len(), c.IsZero())
	}
}

func TestMessageHasItsLengthAndContent(t *testing.T) {
	noneLost(t)
	for _, n := range []int{0, 1, 63, 64, 4095, 4096, 4097, 8192, 8193, 1 << 16, 1<<16 + 1, 1 << 20, 1<<24 + 1} {
		p := bytes.Repeat([]byte{byte(n + 1)}, n)
		m := Copy(p)
		if m.Len() != n || !bytes.Equal(m.Bytes(), p) {
			t.Errorf("copy of %d bytes has %d", n, m.Len())
		}
		if b := m.Bytes(); cap(b) != len(b) {
			t.Errorf("%d bytes: append would write into what follows (%d)", n, cap(b))
		}
		m.Release()
	}
}

func TestMessageOfKeepsTheMemory(t *testing.T) {
	noneLost(t)
	p := []byte("as it was")
	m := MessageOf(p)
	if &m.Bytes()[0] != &p[0] {
		t.Error("MessageOf copied")
	}
	m.Release()
	if string(p) != "as it was" {
		t.Errorf("releasing changed memory that was not the pool's: %q", p)
	}
}

func TestLengthOutOfRangePanics(t *testing.T) {
	for _, n := range []int{-1, MaxLen + 1} {
		if panics(func() { New(n) }) == nil {
			t.Errorf("New(%d) returned", n)
		}
	}
}

func TestTruncateShortensOnly(t *testing.T) {
	noneLost(t)
	m := Copy([]byte("message"))
	defer m.Release()
	for _, n := range []int{-1, 8} {
		if panics(func() { m.Truncate(n) }) == nil {
			t.Errorf("Truncate(%d) of 7 bytes returned", n)
		}
	}
	m.Truncate(7)
	m.Truncate(3)
	if string(m.Bytes()) != "mes" {
		t.Errorf("truncated to %q", m.Bytes())
	}
	if panics(func() { m.Truncate(4) }) == nil {
		t.Error("Truncate made a message longer")
	}
}

func TestCloneSharesNoMemory(t *testing.T) {
	noneLost(t)
	m := Copy([]byte("original"))
	c := m.Clone()
	m.Bytes()[0] = 'O'
	m.Release()
	if string(c.Bytes()) != "original" {
		t.Errorf("clone is %q", c.Bytes())
	}
	c.Release()
}

func TestEachHandleOfASharedMessageIsReleasedOnce(t *testing.T) {
	noneLost(t)
	for _, n := range []int{64, 8 << 10} {
		m := Copy(bytes.Repeat([]byte("x"), n))
		b := m.s.block
		before := b.refs.Load()
		var handles []Message
		for range 5 {
			handles = append(handles, m.Share())
		}
		if got := b.refs.Load() - before; got != 5 {
			t.Errorf("%d bytes: 5 more handles count as %d", n, got)
		}
		m.Release()
		for i, h := range handles {
			if !bytes.Equal(h.Bytes(), bytes.Repeat([]byte("x"), n)) {
				t.Fatalf("%d bytes: handle %d changed", n, i)
			}
			h.Release()
		}
		if got := before - b.refs.Load(); got != 1 {
			t.Errorf("%d bytes: the message and its handles gave %d references back, want the one there was", n, got)
		}
	}
}

func TestTruncatingAHandleLeavesTheOthers(t *testing.T) {
	noneLost(t)
	m := Copy([]byte("message"))
	h := m.Share()
	h.Truncate(1)
	if m.Len() != 7 || h.Len() != 1 {
		t.Errorf("lengths %d and %d, want 7 and 1", m.Len(), h.Len())
	}
	h.Release()
	m.Release()
}

func TestMisuseIsFoundInCheckedBuilds(t *testing.T) {
	if !checked {
		t.Skip("this build does not look for it: use -race or -tags invariants")
	}
	noneLost(t)
	for name, misuse := range map[string]struct {
		do   func(m Message)
		want string
	}{
		"release":        {Message.Release, "released twice"},
		"bytes":          {func(m Message) { m.Bytes() }, "after its release"},
		"share":          {func(m Message) { m.Share() }, "after its release"},
		"clone":          {func(m Message) { m.Clone() }, "after its release"},
		"forget, to say": {func(m Message) { Forget(m); m.Release() }, "released twice"},
	} {
		for _, n := range []int{0, 64, 8 << 10} {
			m := New(n)
			m.Release()
			if r := panics(func() { misuse.do(m) }); r == nil || !strings.Contains(fmt.Sprint(r), misuse.want) {
				t.Errorf("%s of %d released bytes: %v", name, n, r)
			}
		}
	}
}

func TestStaleBytesAreVisibleInCheckedBuilds(t *testing.T) {
	if !checked {
		t.Skip("this build does not look for it: use -race or -tags invariants")
	}
	var a Arena
	m, other := a.Copy([]byte("stale")), a.Copy([]byte("fresh"))
	p := m.Bytes()
	m.Release()
	if string(p) == "stale" {
		t.Error("released bytes look as if they were still there")
	}
	if string(other.Bytes()) != "fresh" {
		t.Errorf("the other message's bytes became %q", other.Bytes())
	}
	other.Release()

	s := Copy([]byte("shared"))
	h := s.Share()
	s.Release()
	if string(h.Bytes()) != "shared" {
		t.Errorf("releasing one handle changed the other's bytes to %q", h.Bytes())
	}
	h.Release()
}

func TestForgottenMemoryIsNotUsedAgain(t *testing.T) {
	noneLost(t)
	for range 100 {
		m := New(8 << 10)
		p := m.Bytes()
		p[0] = 'k'
		Forget(m)
		n := New(8 << 10)
		n.Bytes()[0] = 'x'
		if p[0] != 'k' {
			t.Fatal("memory of a forgotten message was handed out")
		}
		n.Release()
	}
}

func TestOnTouchTellsOfTheFirstUseOnly(t *testing.T) {
	noneLost(t)
	n := make(Notice, 1)
	told := func() int {
		select {
		case <-n:
			return 1
		default:
			return 0
		}
	}
	m := Copy([]byte("large"))
	OnTouch(m, &n)
	if m.Len(); told() != 0 {
		t.Error("asking for the length counts as a touch")
	}
	m.Bytes()
	if told() != 1 {
		t.Error("the first use was not told")
	}
	m.Bytes()
	m.Release()
	if told() != 0 {
		t.Error("a later use was told again")
	}

	m = Copy([]byte("given up"))
	OnTouch(m, &n)
	m.Release()
	if told() != 1 {
		t.Error("a release without a use was not told")
	}

	m = Copy([]byte("nobody listens"))
	n <- struct{}{}
	OnTouch(m, &n)
	m.Bytes() // must not wait for the notice to be taken
	m.Release()
}
