// Package layout lays Go values out as bytes of fixed places: integers and
// floats little-endian at their width, strings and byte slices behind a length,
// structs as their fields in a row. A type is compiled once, to a flat program;
// writing a value then needs no reflection, and reading one needs it only to make
// slices and what optional fields and references point to. That, and strings, is all
// the memory that it takes.
package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"unsafe"
)

// ErrType is what New wraps for a type that has no layout.
var ErrType = errors.New("no fixed layout")

// An Error says why bytes are no value, or a value has no bytes.
type Error struct {
	Offset int // of the part that can't be read
	Reason string
}

func (e *Error) Error() string { return e.Reason }

// A Codec carries values of one type.
type Codec[T any] struct {
	p     *program
	refs  int // that are read of a value at most
	isRef func(reflect.Type) bool
}

// New compiles T. A pointer type that isRef says yes to stands in the bytes as
// the uint64 that its pointee begins with. A value in which there are more than
// mostRefs of them can't be read.
func New[T any](isRef func(reflect.Type) bool, mostRefs int) (*Codec[T], error) {
	p, err := compile(reflect.TypeFor[T](), isRef)
	if err != nil {
		return nil, err
	}
	return &Codec[T]{p, mostRefs, isRef}, nil
}

// Size is how many bytes Append appends for v.
func (c *Codec[T]) Size(v T) int { return c.SizeOf(&v) }

// Append appends v. It fails, with an *Error, for a string or a slice that is
// too long, a missing reference, and an optional field behind one that is nil.
func (c *Codec[T]) Append(b []byte, v T) ([]byte, error) { return c.AppendOf(b, &v) }

// Decode reads a value from the start of b. Bytes behind it are ignored: a peer
// that knows more fields has sent them. It fails with an *Error.
func (c *Codec[T]) Decode(b []byte) (v T, err error) {
	if err = c.DecodeTo(b, &v); err != nil {
		v = *new(T)
	}
	return v, err
}

// SizeOf is Size of what v points to.
func (c *Codec[T]) SizeOf(v *T) int {
	if c.p.size >= 0 {
		return c.p.size
	}
	return c.p.measure(unsafe.Pointer(v))
}

// AppendOf is Append of what v points to, which is not kept.
func (c *Codec[T]) AppendOf(b []byte, v *T) ([]byte, error) {
	return c.p.append(b, unsafe.Pointer(v))
}

// DecodeTo is Decode into what v points to, a zero T, which is not kept. If it fails,
// what was read before that is there.
func (c *Codec[T]) DecodeTo(b []byte, v *T) error {
	if c.p.flat && len(b) >= c.p.size && c.p.fill(unsafe.Pointer(v), b) {
		return nil
	}
	r := reader{b: b, refs: c.refs}
	return r.decode(c.p, unsafe.Pointer(v))
}

// kind is what an op does.
type kind uint8

const (
	opCopy kind = iota // n bytes that look the same here and there
	op16               // a number
	op32
	op64
	opBool // what comes before it, and it, are flat
	opString
	opBytes
	opSlice
	opArray
	opRef
	opOptional
)

// An op carries one part of a value.
type op struct {
	kind   kind
	off    uintptr // of the part in the value
	n      uintptr // opCopy to op64: bytes; opArray: elements
	stride uintptr // opSlice, opArray: from one element to the next
	elem   *program
	typ    reflect.Type // opSlice: the slice; opOptional and opRef: what to point to
}

// A program carries the values of one type.
type program struct {
	ops  []op
	size int  // bytes of every value; -1: it depends
	min  int  // bytes of the shortest value
	refs int  // references in every value
	flat bool // numbers and bools only
	row  bool // such values in a row look the same here and there
}

const (
	tooLong     = "longer than 4 GiB"
	tooManyRefs = "too many references"
)

func (p *program) append(b []byte, v unsafe.Pointer) ([]byte, error) {
	gap := false
	for i := range p.ops {
		o := &p.ops[i]
		at := unsafe.Add(v, o.off)
		var err error
		switch o.kind {
		case opCopy:
			b = append(b, unsafe.Slice((*byte)(at), o.n)...)
		case op16:
			b = binary.LittleEndian.AppendUint16(b, *(*uint16)(at))
		case op32:
			b = binary.LittleEndian.AppendUint32(b, *(*uint32)(at))
		case op64:
			b = binary.LittleEndian.AppendUint64(b, *(*uint64)(at))
		case opBool:
			b = append(b, *(*byte)(at))
		case opString:
			s := *(*string)(at)
			if b, err = appendLen(b, len(s)); err == nil {
				b = append(b, s...)
			}
		case opBytes:
			s := *(*[]byte)(at)
			if b, err = appendLen(b, len(s)); err == nil {
				b = append(b, s...)
			}
		case opSlice:
			s := (*slice)(at)
			if b, err = appendLen(b, s.len); err == nil {
				b, err = o.appendEach(b, s.data, s.len)
			}
		case opArray:
			b, err = o.appendEach(b, at, int(o.n))
		case opRef:
			ref := *(**uint64)(at)
			if ref == nil {
				return b, &Error{len(b), "a nil reference"}
			}
			b = binary.LittleEndian.AppendUint64(b, *ref)
		case opOptional:
			opt := *(*unsafe.Pointer)(at)
			switch {
			case opt == nil:
				gap = true
			case gap:
				err = &Error{len(b), "an optional field is set behind one that is not"}
			default:
				b, err = o.elem.append(b, opt)
			}
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func (o *op) appendEach(b []byte, data unsafe.Pointer, n int) ([]byte, error) {
	if o.elem.row {
		return append(b, unsafe.Slice((*byte)(data), n*int(o.stride))...), nil
	}
	for i := range n {
		var err error
		if b, err = o.elem.append(b, unsafe.Add(data, uintptr(i)*o.stride)); err != nil {
			return b, err
		}
	}
	return b, nil
}

func appendLen(b []byte, n int) ([]byte, error) {
	if uint64(n) > math.MaxUint32 {
		return b, &Error{len(b), tooLong}
	}
	return binary.LittleEndian.AppendUint32(b, uint32(n)), nil
}

// slice is a slice of any type, as it lies in memory.
type slice struct {
	data     unsafe.Pointer
	len, cap int
}

// measure is what append will append.
func (p *program) measure(v unsafe.Pointer) int {
	if p.size >= 0 {
		return p.size
	}
	n := 0
	for i := range p.ops {
		o := &p.ops[i]
		at := unsafe.Add(v, o.off)
		switch o.kind {
		case opString:
			n += 4 + len(*(*string)(at))
		case opBytes:
			n += 4 + len(*(*[]byte)(at))
		case opSlice:
			s := (*slice)(at)
			n += 4 + o.measureEach(s.data, s.len)
		case opArray:
			n += o.measureEach(at, int(o.n))
		case opOptional:
			if opt := *(*unsafe.Pointer)(at); opt != nil {
				n += o.elem.measure(opt)
			}
		default:
			n += o.fixed()
		}
	}
	return n
}

func (o *op) measureEach(data unsafe.Pointer, count int) (n int) {
	if o.elem.size >= 0 {
		return count * o.elem.size
	}
	for i := range count {
		n += o.elem.measure(unsafe.Add(data, uintptr(i)*o.stride))
	}
	return n
}

// fixed is how many bytes the part always takes; for parts that vary, at least.
func (o *op) fixed() int {
	switch o.kind {
	case opCopy, op16, op32, op64:
		return int(o.n)
	case opBool:
		return 1
	case opRef:
		return 8
	case opArray:
		return int(o.n) * o.elem.min
	case opOptional:
		return 0
	}
	return 4
}

// A reader takes a value's bytes from the front of b.
type reader struct {
	b    []byte
	at   int
	refs int // that may still come
}

// take returns the next n bytes.
func (r *reader) take(n uint64) ([]byte, error) {
	left := uint64(len(r.b) - r.at)
	if n > left {
		return nil, &Error{r.at, fmt.Sprintf("%d bytes are due here, %d are left", n, left)}
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b, nil
}

// taken is take for a part that is preceded by its length, in units that take
// each bytes at least.
func (r *reader) taken(each int) (int, error) {
	at := r.at
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint32(b)
	if left := uint64(len(r.b) - r.at); uint64(n)*uint64(each) > left {
		return 0, &Error{at, fmt.Sprintf("a length of %d, and %d bytes are left", n, left)}
	}
	return int(n), nil
}

// fill is decode for a flat program and enough bytes. It returns false if it
// found an error, which decode will name.
func (p *program) fill(v unsafe.Pointer, b []byte) bool {
	for i := range p.ops {
		o := &p.ops[i]
		at := unsafe.Add(v, o.off)
		n := int(o.n)
		switch o.kind {
		case opCopy:
			copy(unsafe.Slice((*byte)(at), n), b)
		case op16:
			*(*uint16)(at) = binary.LittleEndian.Uint16(b)
		case op32:
			*(*uint32)(at) = binary.LittleEndian.Uint32(b)
		case op64:
			*(*uint64)(at) = binary.LittleEndian.Uint64(b)
		case opBool:
			if b[0] > 1 {
				return false
			}
			*(*bool)(at) = b[0] == 1
			n = 1
		}
		b = b[n:]
	}
	return true
}

func (r *reader) decode(p *program, v unsafe.Pointer) error {
	for i := range p.ops {
		o := &p.ops[i]
		at := unsafe.Add(v, o.off)
		switch o.kind {
		case opCopy:
			b, err := r.take(uint64(o.n))
			if err != nil {
				return err
			}
			copy(unsafe.Slice((*byte)(at), o.n), b)
		case opOptional:
			if r.at == len(r.b) {
				return nil // and so are all that follow
			}
			opt := reflect.New(o.typ).UnsafePointer()
			*(*unsafe.Pointer)(at) = opt
			if err := r.decode(o.elem, opt); err != nil {
				return err
			}
		case opSlice:
			if err := r.slice(o, (*slice)(at)); err != nil {
				return err
			}
		case opArray:
			if err := r.each(o, at, int(o.n)); err != nil {
				return err
			}
		default:
			if err := r.scalar(o, at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) scalar(o *op, at unsafe.Pointer) error {
	if o.kind == opString || o.kind == opBytes {
		return r.text(o, at)
	}
	start := r.at
	b, err := r.take(uint64(o.fixed()))
	if err != nil {
		return err
	}
	switch o.kind {
	case opBool:
		if b[0] > 1 {
			return &Error{start, fmt.Sprintf("a bool of %d", b[0])}
		}
		*(*bool)(at) = b[0] == 1
	case op16:
		*(*uint16)(at) = binary.LittleEndian.Uint16(b)
	case op32:
		*(*uint32)(at) = binary.LittleEndian.Uint32(b)
	case op64:
		*(*uint64)(at) = binary.LittleEndian.Uint64(b)
	case opRef:
		if r.refs--; r.refs < 0 {
			return &Error{start, tooManyRefs}
		}
		ref := reflect.New(o.typ).UnsafePointer()
		*(*uint64)(ref) = binary.LittleEndian.Uint64(b)
		*(*unsafe.Pointer)(at) = ref
	}
	return nil
}

func (r *reader) text(o *op, at unsafe.Pointer) error {
	n, err := r.taken(1)
	if err != nil {
		return err
	}
	b, _ := r.take(uint64(n))
	if o.kind == opString {
		*(*string)(at) = string(b)
	} else {
		*(*[]byte)(at) = append([]byte{}, b...)
	}
	return nil
}

// slice makes a slice for as many elements as there are bytes for.
func (r *reader) slice(o *op, s *slice) error {
	at := r.at
	n, err := r.taken(o.elem.min)
	if err != nil {
		return err
	}
	if o.elem.refs > 0 && n > r.refs/o.elem.refs {
		return &Error{at, tooManyRefs}
	}
	*s = slice{reflect.MakeSlice(o.typ, n, n).UnsafePointer(), n, n}
	return r.each(o, s.data, n)
}

func (r *reader) each(o *op, data unsafe.Pointer, n int) error {
	if o.elem.row {
		b, err := r.take(uint64(n) * uint64(o.stride))
		if err != nil {
			return err
		}
		copy(unsafe.Slice((*byte)(data), len(b)), b)
		return nil
	}
	for i := range n {
		if err := r.decode(o.elem, unsafe.Add(data, uintptr(i)*o.stride)); err != nil {
			return err
		}
	}
	return nil
}
