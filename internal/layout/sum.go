package layout

import (
	"hash/fnv"
	"reflect"
	"strconv"
)

// Sum tells layouts apart: two types have the same if their values are the same parts in
// a row, whatever the parts are called and however they are nested. Optional fields at
// the end don't count, for a type may have more of them than its peer knows. A string and
// a byte slice count as one kind: their bytes look the same.
func (c *Codec[T]) Sum() uint32 {
	h := fnv.New32a()
	_, _ = h.Write(describe(nil, reflect.TypeFor[T](), c.isRef, true))
	return h.Sum32()
}

// describe appends what the parts of t are: i, u or f and its bytes for a number, t for a
// bool, s for a string, r for a reference, and brackets around the element of an array,
// behind its length, or of a slice. t has a layout.
func describe(b []byte, t reflect.Type, isRef func(reflect.Type) bool, outermost bool) []byte {
	if isRef != nil && isRef(t) {
		return append(b, 'r')
	}
	switch t.Kind() {
	case reflect.Bool:
		return append(b, 't')
	case reflect.String:
		return append(b, 's')
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i).Type
			if outermost && f.Kind() == reflect.Pointer && !(isRef != nil && isRef(f)) {
				break // it is optional, and so are all behind it
			}
			b = describe(b, f, isRef, false)
		}
		return b
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return append(b, 's')
		}
		return append(describe(append(b, '['), t.Elem(), isRef, false), ']')
	case reflect.Array:
		b = append(strconv.AppendInt(b, int64(t.Len()), 10), '[')
		return append(describe(b, t.Elem(), isRef, false), ']')
	}
	return strconv.AppendUint(append(b, letter(t.Kind())), uint64(t.Size()), 10)
}

// letter says what kind of a number it is.
func letter(k reflect.Kind) byte {
	switch k {
	case reflect.Float32, reflect.Float64:
		return 'f'
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return 'u'
	}
	return 'i'
}
