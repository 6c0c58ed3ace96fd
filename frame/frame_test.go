package frame

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestEveryCodeHasANameOfItsOwn(t *testing.T) {
	seen := map[string]status.Code{}
	for c := range status.Code(200) {
		s := c.String()
		if other, ok := seen[s]; ok {
			t.Errorf("%d and %d are both %s", other, c, s)
		}
		seen[s] = c
		named := c <= 16 || c >= status.Protocol && c <= status.ConnectionLost
		if named == strings.HasPrefix(s, "CODE_") {
			t.Errorf("%d is called %s", c, s)
		}
	}
	if s := (status.FirstAppCode + 44).String(); s != "CODE_300" {
		t.Errorf("an application's code is called %s", s)
	}
}

func TestApplicationsNameTheirCodes(t *testing.T) {
	c := status.FirstAppCode + 4000
	status.NameCode(c, "OUT_OF_STOCK")
	if s := c.String(); s != "OUT_OF_STOCK" {
		t.Errorf("the code is called %s", s)
	}
	defer func() {
		if recover() == nil || status.NotFound.String() != "NOT_FOUND" {
			t.Error("a code that is not the application's got a name")
		}
	}()
	status.NameCode(status.NotFound, "GONE")
}

func TestMetadataIsAnOrderedMultimap(t *testing.T) {
	var md metadata.MD
	md.Add("A-key", "1")
	md.Add("b", "2")
	md.Add("a-KEY", "\x00\xff")
	md.Add("empty", "")
	if got := md.Get("a-key"); got != "1" {
		t.Errorf("the first value is %q", got)
	}
	if got := md.Values("a-key"); !slices.Equal(got, []string{"1", "\x00\xff"}) {
		t.Errorf("the values are %q", got)
	}
	if got := md.Get("none"); got != "" {
		t.Errorf("a missing key has %q", got)
	}
	if v, ok := md.Lookup("none"); v != "" || ok {
		t.Errorf("a missing key has %q, %v", v, ok)
	}
	if v, ok := md.Lookup("empty"); v != "" || !ok {
		t.Errorf("an empty value is %q, %v", v, ok)
	}
	if n := md.Size(); n != 5+1+1+1+5+2+5+4*32 {
		t.Errorf("size %d", n)
	}
}

func TestWhatAKeyMayBe(t *testing.T) {
	for key, want := range map[string]bool{
		"a": true, "x-1_2.3": true, strings.Repeat("k", 255): true,
		"": false, "A": false, "a b": false, "a\x00": false, "é": false, strings.Repeat("k", 256): false,
	} {
		if got, bad := (metadata.MD{{Key: "ok"}, {Key: key}}).BadKey(); bad == want || bad && got != key {
			t.Errorf("%q: bad %v %q", key, bad, got)
		}
	}
}

func TestErrorsCanBeToldApartByCode(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", &status.ProtocolError{Proto: "sluice", Code: status.Checksum, Offset: 7, Detail: "bad sum"})
	if !errors.Is(err, &status.ProtocolError{Code: status.Checksum}) || errors.Is(err, &status.ProtocolError{Code: status.EnhanceYourCalm}) {
		t.Error("the code does not tell")
	}
	if got := errors.Unwrap(err).Error(); got != "sluice protocol error at byte 7: CHECKSUM: bad sum" {
		t.Errorf("it says %q", got)
	}
	if got := (&Violation{status.EnhanceYourCalm, "too much"}).Error(); got != "ENHANCE_YOUR_CALM: too much" {
		t.Errorf("a violation says %q", got)
	}
}

// What goes in by copy and by reference comes out in one order, and messages are
// released when the output is reset, not before.
func TestOutKeepsTheOrderAndTheMemory(t *testing.T) {
	base := pool.Outstanding()
	var o Out
	var want []byte
	put := func(p []byte) {
		o.Payload(p)
		want = append(want, p...)
	}
	put([]byte("head"))
	mark := o.Mark()
	for i, n := range []int{10, inlineMax, inlineMax + 1, 100_000, 3} {
		m := pool.New(n)
		for j := range m.Bytes() {
			m.Bytes()[j] = byte(i)
		}
		put(m.Bytes())
		o.Hold(m)
	}
	put([]byte("tail"))
	if got := bytes.Join(o.Vec(nil), nil); !bytes.Equal(got, want) || o.Len() != len(want) {
		t.Fatalf("%d bytes in another order, length %d, want %d", len(got), o.Len(), len(want))
	}
	var since []byte
	o.Since(mark, func(p []byte) { since = append(since, p...) })
	if !bytes.Equal(since, want[4:]) || o.LenSince(mark) != len(want)-4 {
		t.Errorf("%d bytes since the mark, want %d", len(since), len(want)-4)
	}
	o.Reset()
	if o.Len() != 0 || len(o.Vec(nil)) != 0 {
		t.Error("something is left after Reset")
	}
	if n := pool.Outstanding() - base; n != 0 {
		t.Errorf("%d messages are still held", n)
	}
}

func TestRunsAreReleasedAtOnceUnlessReferredTo(t *testing.T) {
	base := pool.Outstanding()
	var o Out
	run := func(n int) (q pool.Queue) {
		for range 3 {
			q.Push(pool.New(n))
		}
		return q
	}
	o.HoldAll(run(10), o.Refs())
	if n := pool.Outstanding() - base; n != 0 {
		t.Errorf("%d small messages are held", n)
	}
	big, refs := run(inlineMax+1), o.Refs()
	big.Each(func(m pool.Message) { o.Payload(m.Bytes()) })
	o.HoldAll(big, refs)
	if o.Refs() != 3*(inlineMax+1) {
		t.Errorf("%d bytes by reference", o.Refs())
	}
	o.Reset()
	if n := pool.Outstanding() - base; n != 0 {
		t.Errorf("%d messages are held after Reset", n)
	}
}

// The pieces of a message, cut anywhere in its cost, hold its bytes once and in order.
func TestPiecesHoldAMessageOnce(t *testing.T) {
	const overhead, length = 5, 9
	for cut := 1; cut <= overhead+length; cut++ {
		at := 0
		for off := 0; off < overhead+length; off += cut {
			from, to := Part(overhead, off, min(cut, overhead+length-off))
			if from != at || to < from || to > length {
				t.Errorf("in pieces of %d: at %d comes %d to %d", cut, at, from, to)
			}
			at = to
		}
		if at != length {
			t.Errorf("in pieces of %d: %d of %d bytes", cut, at, length)
		}
	}
}
