package codec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc/codec"
)

// marshaler is e's for T.
func marshaler[T any](t *testing.T, e *codec.Encoding) *codec.Marshaler[T] {
	t.Helper()
	m, err := codec.MarshalerOf[T](e)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMessageComesBackAsItsValue(t *testing.T) {
	type point struct {
		X, Y int32
		Name string
	}
	before := pool.Outstanding()
	for name, e := range map[string]*codec.Encoding{"default": nil, "fixed": codec.Fixed, "json": codec.JSON} {
		m := marshaler[point](t, e)
		v, got := point{1, -2, "here"}, point{}
		msg, err := m.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Unmarshal(msg, &got); err != nil || got != v {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if again := marshaler[point](t, e); again != m {
			t.Errorf("%s: another marshaler the second time", name)
		}
		msg, err = m.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		m.Discard(msg)
	}
	if n := pool.Outstanding() - before; n != 0 {
		t.Errorf("%d messages were not released", n)
	}
}

// A pool.Message is its own message: nothing is copied, and Discard leaves it alone.
func TestAMessageIsItsOwnValue(t *testing.T) {
	m := marshaler[pool.Message](t, codec.JSON)
	v := pool.MessageOf([]byte("abc"))
	msg, err := m.Marshal(&v)
	if err != nil || msg != v {
		t.Fatalf("%v, %v", msg, err)
	}
	m.Discard(msg)
	var got pool.Message
	if err := m.Unmarshal(msg, &got); err != nil || string(got.Bytes()) != "abc" {
		t.Errorf("%q, %v", got.Bytes(), err)
	}
	got.Release()
}

// stream is what package rpc's sinks and sources are to an encoding.
type stream struct{ end }

type end struct {
	ref codec.Ref
}

func (s *stream) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, s.ref.ID, 10), nil }

func (s *stream) UnmarshalJSON(p []byte) (err error) {
	s.ref.ID, err = strconv.ParseUint(string(p), 10, 64)
	return err
}

func TestReferencesTravelAsNumbers(t *testing.T) {
	type inner struct{ S *stream }
	type request struct {
		N    int32
		One  *stream
		More []*stream
		In   inner
		Opt  *inner
	}
	v := request{N: 1, One: &stream{}, More: []*stream{{}, {}}, In: inner{&stream{}}, Opt: &inner{&stream{}}}
	for name, e := range map[string]*codec.Encoding{"fixed": codec.Fixed, "json": codec.JSON} {
		m := marshaler[request](t, e)
		if n := len(m.RefTypes()); n != 4 || m.RefTypes()[0] != reflect.TypeFor[*stream]() {
			t.Errorf("%s: references of types %v", name, m.RefTypes())
		}
		n := uint64(0)
		_ = m.EachRef(&v, func(ref any) error { n++; ref.(*stream).ref.ID = 1000 * n; return nil })
		msg, err := m.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		var got request
		if err := m.Unmarshal(msg, &got); err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		_ = m.EachRef(&got, func(ref any) error { ids = append(ids, ref.(*stream).ref.ID); return nil })
		if want := []uint64{1000, 2000, 3000, 4000, 5000}; !reflect.DeepEqual(ids, want) {
			t.Errorf("%s: %v, want %v", name, ids, want)
		}
	}
	m := marshaler[request](t, codec.Fixed)
	nils := 0
	_ = m.EachRef(&request{More: []*stream{nil}}, func(ref any) error {
		if ref == nil {
			nils++
		}
		return nil
	})
	if nils != 3 {
		t.Errorf("%d references are nil, want 3: behind Opt there is none", nils)
	}
	stop := errors.New("stop")
	if err := m.EachRef(&v, func(any) error { nils++; return stop }); err != stop || nils != 4 {
		t.Errorf("%v after %d", err, nils-3)
	}
	if n := len(marshaler[*struct{ A int32 }](t, codec.JSON).RefTypes()); n != 0 {
		t.Errorf("%d references in a pointer to something else", n)
	}
}

// brief is a codec of one byte, which says nothing of where it fails.
type brief struct{ err error }

func (c brief) Append(b []byte, v int8) ([]byte, error) { return append(b, byte(v)), c.err }

func (c brief) Decode(p []byte) (int8, error) { return 0, c.err }

func TestErrorsSayWhatCouldNotBeDone(t *testing.T) {
	var v int8
	broken := errors.New("broken")
	m := codec.NewMarshaler[int8](brief{broken})
	if _, err := m.Marshal(&v); !errors.Is(err, broken) {
		t.Errorf("Marshal: %v", err)
	}
	err := m.Unmarshal(pool.MessageOf(nil), &v)
	var de *codec.DecodeError
	if !errors.As(err, &de) || de.Offset != -1 || de.Type != "int8" || !errors.Is(err, broken) {
		t.Errorf("Unmarshal: %#v", err)
	}
	for _, c := range []struct {
		e    codec.DecodeError
		want string
	}{
		{codec.DecodeError{Type: "int8", Offset: -1, Err: broken}, "sluice: cannot decode int8: broken"},
		{codec.DecodeError{Method: "m", Type: "int8", Offset: -1, Err: broken}, "sluice: m: in the call: cannot decode int8: broken"},
		{codec.DecodeError{Method: "m", Message: 3, Offset: 7, Type: "int8", Err: broken}, "sluice: m: message 3, byte 7: cannot decode int8: broken"},
	} {
		if got := c.e.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	// What a stream's end looks like must be one.
	err = codec.NewMarshaler[int8](brief{fmt.Errorf("short: %w", io.EOF)}).Unmarshal(pool.MessageOf(nil), &v)
	if errors.Is(err, io.EOF) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an io.EOF of a codec's is %v", err)
	}
}

// What JSON's codec for strings writes and reads is what package json does, but for the
// escapes that JSON does not ask for.
func TestStringsInJSON(t *testing.T) {
	m := marshaler[string](t, codec.JSON)
	check := func(v string) {
		t.Helper()
		var got, other string
		msg, err := m.Marshal(&v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(msg.Bytes(), &other); err != nil {
			t.Errorf("%q is written as %q: %v", v, msg.Bytes(), err)
		}
		if err := m.Unmarshal(msg, &got); err != nil || got != strings.ToValidUTF8(v, "\ufffd") || got != other {
			t.Errorf("%q comes back as %q, %v; for package json it is %q", v, got, err, other)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Unmarshal(pool.MessageOf(b), &got); err != nil || got != other {
			t.Errorf("%q is read as %q, %v", b, got, err)
		}
	}
	for _, n := range []int{0, 1, 7, 8, 9, 23, 31, 32, 40, 70, 5000} {
		check(strings.Repeat("x", n))
		for c := range 256 {
			// In each word of the first block, in a later one, and behind the last.
			for _, at := range []int{0, min(9, n), min(18, n), min(27, n), n / 2, n} {
				check(strings.Repeat("~", at) + string([]byte{byte(c)}) + strings.Repeat(" ", n-at))
			}
		}
	}
	for _, p := range []string{``, `"`, `"a"b"`, `"a\"`, "\"a\nb\"", `x"`, `"12345678"1`, `12345678`, "\"1234567\x00\"", `null`, ` "a" `} {
		var got, want string
		err := m.Unmarshal(pool.MessageOf([]byte(p)), &got)
		if other := json.Unmarshal([]byte(p), &want); (err == nil) != (other == nil) || got != want {
			t.Errorf("%q is read as %q, %v; by package json as %q, %v", p, got, err, want, other)
		}
	}
}

// A long string is sent from its own memory, a short one and bytes are copied; what is
// received is the program's own.
func TestLongStringsAreSentInPlace(t *testing.T) {
	text, bytes := marshaler[string](t, codec.Raw), marshaler[[]byte](t, codec.Raw)
	inPlace := func(msg pool.Message, p *byte) bool { return unsafe.SliceData(msg.Bytes()) == p }
	before := pool.Outstanding()
	for _, n := range []int{0, 1, 4 << 10, 4<<10 + 1, 64 << 10, 1 << 20} {
		s := strings.Repeat("x", n)
		msg, err := text.Marshal(&s)
		if err != nil || string(msg.Bytes()) != s || inPlace(msg, unsafe.StringData(s)) != (n > 4<<10) {
			t.Errorf("a string of %d bytes: %v, in place: %v", n, err, inPlace(msg, unsafe.StringData(s)))
		}
		var got string
		if err := text.Unmarshal(msg.Share(), &got); err != nil || got != s || n > 0 && inPlace(msg, unsafe.StringData(got)) {
			t.Errorf("a string of %d bytes came back with %d, %v", n, len(got), err)
		}
		text.Discard(msg)
		p := []byte(s)
		msg, err = bytes.Marshal(&p)
		if err != nil || n > 0 && inPlace(msg, unsafe.SliceData(p)) {
			t.Errorf("%d bytes: %v, or in place", n, err)
		}
		var q []byte
		if err := bytes.Unmarshal(msg.Share(), &q); err != nil || string(q) != s || q == nil || n > 0 && inPlace(msg, unsafe.SliceData(q)) {
			t.Errorf("%d bytes came back as %d, %v", n, len(q), err)
		}
		bytes.Discard(msg)
	}
	if n := pool.Outstanding() - before; n != 0 {
		t.Errorf("%d messages were not released", n)
	}
}
