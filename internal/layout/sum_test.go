package layout

import (
	"reflect"
	"testing"
)

func sum[T any](t *testing.T) uint32 {
	t.Helper()
	return mustNew[T](t).Sum()
}

// Types whose values look the same have one sum, whatever the parts are called.
func TestSumsTellLayoutsApart(t *testing.T) {
	type (
		two    struct{ X, Y int32 }
		inner  struct{ In pair }
		grown2 struct {
			A int32
			B *string
		}
		entries struct{ In []pair }
	)
	alike := func(what string, a, b uint32) {
		t.Helper()
		if a != b {
			t.Errorf("%s: %08x and %08x", what, a, b)
		}
	}
	alike("other names", sum[pair](t), sum[two](t))
	alike("nested", sum[pair](t), sum[inner](t))
	alike("optional fields", sum[grown](t), sum[grown2](t))
	alike("a struct of one field", sum[int32](t), sum[grown](t))
	alike("strings and bytes", sum[named](t), sum[[]byte](t))
	alike("named elements", sum[[]two](t), sum[entries](t))

	ref := reflect.TypeFor[*uint64]()
	isRef := func(t reflect.Type) bool { return t == ref }
	refs, err := New[*uint64](isRef, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint32]int{}
	for i, s := range []uint32{
		sum[int8](t), sum[uint8](t), sum[int16](t), sum[uint16](t), sum[int32](t), sum[uint32](t), sum[float32](t),
		sum[int64](t), sum[uint64](t), sum[float64](t), sum[bool](t), sum[string](t), refs.Sum(),
		sum[pair](t), sum[[]int32](t), sum[[][]int32](t), sum[[]pair](t), sum[[2]pair](t), sum[[3]pair](t), sum[[2][]pair](t),
		sum[mixed](t), sum[gaps](t), sum[nested](t), sum[struct{}](t),
	} {
		if first, ok := seen[s]; ok {
			t.Errorf("types %d and %d have the same sum", first, i)
		}
		seen[s] = i
	}
	if s := sum[gaps](t); s != 0xb7fa86d2 { // other programs compute it too: it must not change
		t.Errorf("the sum of %s is %08x", describe(nil, reflect.TypeFor[gaps](), nil, true), s)
	}
}
