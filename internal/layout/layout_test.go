package layout

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func mustNew[T any](t testing.TB) *Codec[T] {
	t.Helper()
	c, err := New[T](nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// swapped compiles T as on a host with the other order of bytes.
func swapped[T any](t testing.TB) *Codec[T] {
	t.Helper()
	p, err := (&compiler{swap: true}).compile(reflect.TypeFor[T]())
	if err != nil {
		t.Fatal(err)
	}
	return &Codec[T]{p: p}
}

type (
	pair  struct{ A, B int32 }
	long  struct{ A, B, C, D, E, F, G, H uint64 }
	mixed struct {
		I8  int8
		U8  uint8
		I16 int16
		U16 uint16
		I32 int32
		U32 uint32
		I64 int64
		U64 uint64
		F32 float32
		F64 float64
		Yes bool
		No  bool
	}
	gaps struct {
		A int32
		B int64
		C int16
		D string
		E int32
	}
	nested struct {
		Pairs  []pair
		Names  []string
		Flags  [3]bool
		Blob   []byte
		Deep   [][]int16
		Square [2]pair
		Words  [2]string
	}
	grown struct {
		A int32
		B *string
		C *int64
		D *[]pair
	}
	named  string
	number int16
)

func ptr[T any](v T) *T { return &v }

func check[T any](t *testing.T, v T, want string) {
	t.Helper()
	raw, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*Codec[T]{"in one piece": mustNew[T](t), "swapped": swapped[T](t)} {
		b, err := c.Append([]byte("before"), v)
		if err != nil {
			t.Fatalf("%T %s: %v", v, name, err)
		}
		if b = b[len("before"):]; !bytes.Equal(b, raw) {
			t.Errorf("%T %s: % x\nwant % x", v, name, b, raw)
		}
		if n := c.Size(v); n != len(raw) {
			t.Errorf("%T %s: size %d, want %d", v, name, n, len(raw))
		}
		got, err := c.Decode(raw)
		if err != nil {
			t.Fatalf("%T %s: %v", v, name, err)
		}
		if !reflect.DeepEqual(got, v) {
			t.Errorf("%T %s: %+v, want %+v", v, name, got, v)
		}
	}
}

// The bytes are those that Seastar's programs send with its usual serializer:
// numbers little-endian, strings behind a length of 32 bits, and nothing between.
func TestValuesLieInARow(t *testing.T) {
	check(t, int32(-2), "fe ff ff ff")
	check(t, "abcd", "04 00 00 00 61 62 63 64")
	check(t, "", "00 00 00 00")
	check(t, named("x"), "01 00 00 00 78")
	check(t, number(0x0102), "02 01")
	check(t, []byte{}, "00 00 00 00")
	check(t, true, "01")
	check(t, struct{}{}, "")
	check(t, [2]uint16{1, 2}, "01 00 02 00")
	check(t, struct {
		A int32
		B int64
	}{7, 100}, "07 00 00 00 64 00 00 00 00 00 00 00")
	check(t, mixed{-1, 2, -3, 4, -5, 6, -7, 8, 1.5, -2.5, true, false},
		"ff 02 fd ff 04 00 fb ff ff ff 06 00 00 00 f9 ff ff ff ff ff ff ff 08 00 00 00 00 00 00 00"+
			"00 00 c0 3f 00 00 00 00 00 00 04 c0 01 00")
	check(t, gaps{1, 2, 3, "four", 5},
		"01 00 00 00 02 00 00 00 00 00 00 00 03 00 04 00 00 00 66 6f 75 72 05 00 00 00")
	check(t, nested{
		Pairs: []pair{{1, 2}, {3, 4}}, Names: []string{"a", ""}, Flags: [3]bool{true, false, true},
		Blob: []byte{9}, Deep: [][]int16{{1}, {}}, Square: [2]pair{{5, 6}, {7, 8}}, Words: [2]string{"x", "yz"},
	}, "02 00 00 00 01 00 00 00 02 00 00 00 03 00 00 00 04 00 00 00"+
		"02 00 00 00 01 00 00 00 61 00 00 00 00 01 00 01 01 00 00 00 09"+
		"02 00 00 00 01 00 00 00 01 00 00 00 00 00"+
		"05 00 00 00 06 00 00 00 07 00 00 00 08 00 00 00"+
		"01 00 00 00 78 02 00 00 00 79 7a")
	check(t, long{1, 2, 3, 4, 5, 6, 7, 8}, strings.Repeat("0100000000000000", 1)+
		"0200000000000000030000000000000004000000000000000500000000000000"+
		"060000000000000007000000000000000800000000000000")
}

func TestOptionalFieldsAreThereIfBytesAreLeft(t *testing.T) {
	check(t, grown{A: 1}, "01 00 00 00")
	check(t, grown{A: 1, B: ptr("b")}, "01 00 00 00 01 00 00 00 62")
	check(t, grown{A: 1, B: ptr(""), C: ptr(int64(3)), D: &[]pair{{4, 5}}},
		"01 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 01 00 00 00 04 00 00 00 05 00 00 00")
	_, err := mustNew[grown](t).Append(nil, grown{A: 1, C: ptr(int64(3))})
	wantError(t, err, 4, "behind one that is not")
}

// A peer that knows more fields than we do has put them at the end.
func TestFurtherBytesAreIgnored(t *testing.T) {
	v, err := mustNew[pair](t).Decode([]byte{1, 0, 0, 0, 2, 0, 0, 0, 77})
	if err != nil || v != (pair{1, 2}) {
		t.Errorf("%v, %v", v, err)
	}
}

func TestFieldsInARowAreCarriedInOnePiece(t *testing.T) {
	if !littleEndian {
		t.Skip("this host's bytes are in the other order")
	}
	for _, c := range []struct {
		p    *program
		want int
	}{
		{mustNew[long](t).p, 1}, {mustNew[pair](t).p, 1}, {mustNew[[4]long](t).p, 1}, {mustNew[gaps](t).p, 4},
		{mustNew[struct {
			P pair
			Q [2]pair
			R uint32
		}](t).p, 1},
	} {
		if len(c.p.ops) != c.want {
			t.Errorf("%d steps, want %d: %+v", len(c.p.ops), c.want, c.p.ops)
		}
	}
}

// Bytes are no number: the other order is none of theirs.
func TestBytesAreNeverSwapped(t *testing.T) {
	p := swapped[struct {
		A    [2]uint8
		B    [8]int8
		C, D uint8
	}](t).p
	if len(p.ops) != 1 || p.ops[0].kind != opCopy {
		t.Errorf("%+v", p.ops)
	}
}

func TestValuesOfFixedSizeTakeNoMemory(t *testing.T) {
	c, d := mustNew[mixed](t), swapped[mixed](t)
	buf := make([]byte, 0, 64)
	v := mixed{I8: 1, F64: 2, Yes: true}
	n := testing.AllocsPerRun(100, func() {
		b, err := c.Append(buf, v)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Decode(b)
		if err != nil || x != v || c.Size(v) != len(b) {
			t.Fatal(x, err)
		}
		if x, err = d.Decode(b); err != nil || x != v {
			t.Fatal(x, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func wantError(t *testing.T, err error, offset int, text string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Offset != offset || !strings.Contains(e.Reason, text) {
		t.Errorf("got %#v, want an error at %d with %q", err, offset, text)
	}
}

func fails[T any](t *testing.T, b string, offset int, text string) {
	t.Helper()
	v, err := mustNew[T](t).Decode([]byte(b))
	wantError(t, err, offset, text)
	var zero T
	if !reflect.DeepEqual(v, zero) {
		t.Errorf("%+v beside an error", v)
	}
}

func TestErrorsNameTheByte(t *testing.T) {
	fails[pair](t, "1234567", 0, "8 bytes are due here, 7 are left")
	fails[gaps](t, "AAAABBBBBBBBCC\x05\x00\x00\x00abcd", 14, "a length of 5, and 4 bytes are left")
	fails[gaps](t, "AAAABBBBBBBBCC\x05\x00\x00", 14, "4 bytes are due here, 3 are left")
	fails[gaps](t, "AAAABBBBBBBBCC\x01\x00\x00\x00a", 19, "4 bytes are due here, 0 are left")
	fails[bool](t, "\x02", 0, "a bool of 2")
	fails[[]bool](t, "\x02\x00\x00\x00\x01\x07", 5, "a bool of 7")
	fails[[]string](t, "\x02\x00\x00\x00\x01\x00\x00\x00a\x09\x00\x00\x00", 9, "a length of 9")
	fails[[]pair](t, "\xff\xff\xff\xff12345678", 0, "a length of 4294967295")
	fails[[][]int64](t, "\x01\x00\x00\x00\xff\xff\xff\x7f", 4, "a length of 2147483647")
	fails[grown](t, "AAAA\x00\x00\x00\x00123", 8, "8 bytes are due here, 3 are left")
	fails[grown](t, "AAAA\x00", 4, "4 bytes are due here, 1 are left")
}

// Nothing is allocated for elements that there are no bytes for.
func TestALengthIsBelievedAsFarAsThereAreBytes(t *testing.T) {
	c := mustNew[[]string](t)
	b := append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 1<<10)...)
	n := allocated(func() {
		if _, err := c.Decode(b); err == nil {
			t.Error("no error")
		}
	})
	if n > 4096 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestTypesWithoutALayout(t *testing.T) {
	type loop struct{ Next []loop }
	type inner struct{ P *int32 }
	refuse[int](t, "int has no fixed size")
	refuse[struct{ A struct{ B uint } }](t, ".A.B: uint has no fixed size")
	refuse[map[string]int32](t, "can't be carried")
	refuse[any](t, "can't be carried")
	refuse[complex64](t, "can't be carried")
	refuse[chan int32](t, "can't be carried")
	refuse[*int32](t, "optional field, at the end of the outermost struct only")
	refuse[struct {
		P *int32
		A int32
	}](t, ".A: it follows an optional field")
	refuse[struct{ I inner }](t, ".I.P: a pointer stands for")
	refuse[[]inner](t, "P: a pointer stands for")
	refuse[struct{ A, b int32 }](t, ".b: the field is not exported")
	refuse[loop](t, "contains itself")
	refuse[[]struct{}](t, "may take no byte")
	refuse[struct{ P *struct{} }](t, "may take no byte")
	refuse[struct{ P **int32 }](t, "a pointer stands for")
}

func refuse[T any](t *testing.T, text string) {
	t.Helper()
	_, err := New[T](nil, 0)
	if !errors.Is(err, ErrType) || !strings.Contains(err.Error(), text) {
		t.Errorf("%T: %v, want %q", *new(T), err, text)
	}
}

type ref[T any] struct {
	id    uint64
	other T
}

// withRefs compiles a type in which pointers to refs are references.
func withRefs[T any](t *testing.T, most int) *Codec[T] {
	t.Helper()
	c, err := New[T](func(t reflect.Type) bool {
		return t == reflect.TypeFor[*ref[string]]() || t == reflect.TypeFor[*ref[int]]()
	}, most)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReferencesStandAsTheirNumber(t *testing.T) {
	type args struct {
		A int32
		R *ref[string]
		S []*ref[int]
		O *int16
	}
	c := withRefs[args](t, 3)
	v := args{1, &ref[string]{2, "x"}, []*ref[int]{{3, 0}, {4, 0}}, ptr(int16(5))}
	b, err := c.Append(nil, v)
	want := "\x01\x00\x00\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x02\x00\x00\x00" + "\x03\x00\x00\x00\x00\x00\x00\x00" + "\x04\x00\x00\x00\x00\x00\x00\x00" + "\x05\x00"
	if err != nil || string(b) != want || c.Size(v) != len(want) {
		t.Fatalf("% x, %v", b, err)
	}
	got, err := c.Decode(b)
	if err != nil || got.R.id != 2 || got.R.other != "" || len(got.S) != 2 || got.S[1].id != 4 || *got.O != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = c.Append(nil, args{A: 1})
	wantError(t, err, 4, "nil reference")
}

// A slice is not made for references that are too many, nor is one more read.
func TestReferencesHaveABound(t *testing.T) {
	type two struct {
		A [2]*ref[int]
		N int64
	}
	long := append([]byte{200, 0, 0, 0}, make([]byte, 200*24)...)
	_, err := withRefs[[]two](t, 399).Decode(long)
	wantError(t, err, 0, "too many references")
	c := withRefs[[]two](t, 399)
	if n := testing.AllocsPerRun(10, func() { _, _ = c.Decode(long) }); n > 3 {
		t.Errorf("%v allocations to refuse too many", n)
	}
	if _, err = withRefs[[]two](t, 400).Decode(long); err != nil {
		t.Error(err)
	}
	_, err = withRefs[[][]*ref[int]](t, 2).Decode([]byte("\x02\x00\x00\x00" +
		"\x02\x00\x00\x001111111122222222" + "\x01\x00\x00\x0033333333"))
	wantError(t, err, 24, "too many references")
	_, err = withRefs[[3]*ref[int]](t, 2).Decode(make([]byte, 24))
	wantError(t, err, 16, "too many references")
}

// Who decodes in place is left with the references in front of an error.
func TestWhatWasReadBeforeAnErrorIsThere(t *testing.T) {
	type args struct {
		R *ref[string]
		S []*ref[int]
		O *struct {
			R *ref[int]
			N int64
		}
	}
	c := withRefs[args](t, 10)
	b := []byte("11111111" + "\x02\x00\x00\x002222222233333333" + "44444444" + "1234567")
	for n, want := range map[int]string{len(b): "1234", 28: "123", 20: "1", 8: "1", 7: ""} {
		var v args
		if err := c.DecodeTo(b[:n], &v); (err == nil) != (n == 28) {
			t.Errorf("%d bytes: %v", n, err)
		}
		var got []byte
		refs := []*ref[int]{(*ref[int])(nil)}
		if v.R != nil {
			refs = append(refs, &ref[int]{id: v.R.id})
		}
		refs = append(refs, v.S...)
		if v.O != nil {
			refs = append(refs, v.O.R)
		}
		for _, r := range refs {
			if r != nil {
				got = append(got, byte(r.id))
			}
		}
		if string(got) != want {
			t.Errorf("%d bytes: references %q, want %q", n, got, want)
		}
		if v, err := c.Decode(b[:n]); err != nil && !reflect.ValueOf(v).IsZero() {
			t.Errorf("%d bytes: Decode gives %+v beside an error", n, v)
		}
	}
}

// everything has each kind of part in it.
type everything struct {
	M mixed
	G gaps
	N nested
	S []gaps
	O *nested
	P *grownInside
}

type grownInside struct{ A [2][]string }

// What can be read is written the same, and both orders of bytes agree.
func FuzzReadWrite(f *testing.F) {
	c := mustNew[everything](f)
	d := swapped[everything](f)
	for _, v := range []everything{
		{}, {O: &nested{}}, {O: &nested{Names: []string{"a"}}, P: &grownInside{}},
		{S: []gaps{{D: "x"}, {}}, M: mixed{F32: float32(math.NaN()), Yes: true}},
	} {
		b, err := c.Append(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := c.Decode(b)
		w, other := d.Decode(b)
		if (err == nil) != (other == nil) {
			t.Fatalf("%v, and swapped %v", err, other)
		}
		if err != nil {
			wantOffset(t, err, other, len(b))
			return
		}
		for _, c := range []*Codec[everything]{c, d} {
			for _, v := range []everything{v, w} {
				again, err := c.Append(nil, v)
				if err != nil || !bytes.HasPrefix(b, again) || c.Size(v) != len(again) {
					t.Fatalf("% x became % x, size %d, %v", b, again, c.Size(v), err)
				}
			}
		}
	})
}

func wantOffset(t *testing.T, err, other error, n int) {
	t.Helper()
	var e, o *Error
	if !errors.As(err, &e) || !errors.As(other, &o) || e.Offset < 0 || e.Offset > n || o.Offset > n {
		t.Fatalf("%v and %v for %d bytes", err, other, n)
	}
}
