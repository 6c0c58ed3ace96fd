package codec

import "reflect"

// A Ref makes pointers to a struct whose first field it is references: encodings
// carry the number ID in the place of what they point to. Package rpc's sinks and
// sources are such structs, and the number stands for a stream. To Fixed a reference
// is a uint64; for JSON the struct has methods of its own.
type Ref struct{ ID uint64 }

var refType = reflect.TypeFor[Ref]()

// maxRefs is how many references a value can have: as many as a call can pass streams.
const maxRefs = 256

// isRef tells whether t is a pointer to a struct that begins with a Ref.
func isRef(t reflect.Type) bool {
	if t.Kind() != reflect.Pointer {
		return false
	}
	for t = t.Elem(); t.Kind() == reflect.Struct && t.NumField() > 0; {
		if t = t.Field(0).Type; t == refType {
			return true
		}
	}
	return false
}

// A finder calls f with each reference in v, with nil for one that is nil, until f
// fails. A nil finder finds none.
type finder func(v reflect.Value, f func(ref any) error) error

// refs is what is known of the references in a type.
type refs struct {
	find  finder
	types []reflect.Type // of the references, the different ones
}

func refsOf(t reflect.Type) refs {
	var w walker
	w.find = w.walk(t)
	return w.refs
}

// A walker finds the references in a type.
type walker struct {
	refs
	within []reflect.Type
}

func (w *walker) walk(t reflect.Type) finder {
	if isRef(t) {
		w.types = append(w.types, t)
		return func(v reflect.Value, f func(ref any) error) error {
			if v.IsNil() {
				return f(nil)
			}
			return f(v.Interface())
		}
	}
	for _, outer := range w.within {
		if outer == t {
			return nil // looked at already
		}
	}
	w.within = append(w.within, t)
	defer func() { w.within = w.within[:len(w.within)-1] }()
	switch t.Kind() {
	case reflect.Struct:
		return w.fields(t)
	case reflect.Slice, reflect.Array:
		return elements(w.walk(t.Elem()))
	case reflect.Pointer:
		return pointee(w.walk(t.Elem()))
	}
	return nil
}

func pointee(find finder) finder {
	if find == nil {
		return nil
	}
	return func(v reflect.Value, f func(ref any) error) error {
		if v.IsNil() {
			return nil
		}
		return find(v.Elem(), f)
	}
}

func (w *walker) fields(t reflect.Type) finder {
	var at []int
	var finds []finder
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		if find := w.walk(t.Field(i).Type); find != nil {
			at, finds = append(at, i), append(finds, find)
		}
	}
	if finds == nil {
		return nil
	}
	return func(v reflect.Value, f func(ref any) error) error {
		for i, find := range finds {
			if err := find(v.Field(at[i]), f); err != nil {
				return err
			}
		}
		return nil
	}
}

func elements(find finder) finder {
	if find == nil {
		return nil
	}
	return func(v reflect.Value, f func(ref any) error) error {
		for i := range v.Len() {
			if err := find(v.Index(i), f); err != nil {
				return err
			}
		}
		return nil
	}
}
