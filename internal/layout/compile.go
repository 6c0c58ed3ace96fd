package layout

import (
	"encoding/binary"
	"fmt"
	"reflect"
)

// littleEndian tells whether this host has the bytes of a number in the order
// that they travel in. Then fields that lie in a row are carried in one piece.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// compiler turns a type into a program.
type compiler struct {
	isRef func(reflect.Type) bool
	swap  bool           // never copy a number in one piece
	path  []reflect.Type // what is being compiled, to notice a type inside itself
}

func compile(t reflect.Type, isRef func(reflect.Type) bool) (*program, error) {
	c := &compiler{isRef: isRef, swap: !littleEndian}
	return c.compile(t)
}

func (c *compiler) compile(t reflect.Type) (*program, error) {
	p := &program{}
	if err := c.add(p, t, 0, t.String(), true); err != nil {
		return nil, err
	}
	return p.sum(), nil
}

// sum finds out how long the program's values are, and what is in all of them.
func (p *program) sum() *program {
	p.flat = true
	for i := range p.ops {
		o := &p.ops[i]
		p.min += o.fixed()
		switch o.kind {
		case opRef:
			p.refs++
		case opArray:
			p.refs += int(o.n) * o.elem.refs
		}
		p.flat = p.flat && o.kind <= opBool
		varies := o.kind == opString || o.kind == opBytes || o.kind == opSlice || o.kind == opOptional ||
			o.kind == opArray && o.elem.size < 0
		if varies {
			p.size = -1
		}
	}
	if p.size == 0 {
		p.size = p.min
	}
	return p
}

func (c *compiler) no(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrType, name, fmt.Sprintf(format, args...))
}

// add compiles what lies at off of the value; name is what errors call it. Only
// what is last of all may be optional.
func (c *compiler) add(p *program, t reflect.Type, off uintptr, name string, last bool) error {
	if c.isRef != nil && c.isRef(t) {
		p.ops = append(p.ops, op{kind: opRef, off: off, typ: t.Elem()})
		return nil
	}
	switch t.Kind() {
	case reflect.Int8, reflect.Uint8, reflect.Int16, reflect.Uint16, reflect.Int32, reflect.Uint32,
		reflect.Int64, reflect.Uint64, reflect.Float32, reflect.Float64:
		c.number(p, t.Size(), off)
	case reflect.Bool:
		p.ops = append(p.ops, op{kind: opBool, off: off})
	case reflect.String:
		p.ops = append(p.ops, op{kind: opString, off: off})
	case reflect.Struct:
		return c.fields(p, t, off, name, last)
	case reflect.Slice:
		return c.slice(p, t, off, name)
	case reflect.Array:
		return c.array(p, t, off, name)
	case reflect.Int, reflect.Uint, reflect.Uintptr:
		return c.no(name, "%s has no fixed size: say how many bits", t)
	case reflect.Pointer:
		return c.no(name, "a pointer stands for an optional field, at the end of the outermost struct only")
	default:
		return c.no(name, "%s can't be carried", t)
	}
	return nil
}

// run adds size bytes that look the same here and there, to what comes before
// them where both lie in a row.
func (c *compiler) run(p *program, size, off uintptr) {
	if n := len(p.ops); n > 0 {
		last := &p.ops[n-1]
		if (last.kind == opCopy || last.kind <= op64 && !c.swap) && last.off+last.n == off {
			last.kind, last.n = opCopy, last.n+size
			return
		}
	}
	k := opCopy
	if !c.swap {
		k = kindOf(size)
	}
	p.ops = append(p.ops, op{kind: k, off: off, n: size})
}

// kindOf is how so many bytes are carried. A number by itself has an op of its
// own, which costs less than a copy.
func kindOf(size uintptr) kind {
	switch size {
	case 2:
		return op16
	case 4:
		return op32
	case 8:
		return op64
	}
	return opCopy
}

func (c *compiler) number(p *program, size, off uintptr) {
	if c.swap && size > 1 {
		p.ops = append(p.ops, op{kind: kindOf(size), off: off, n: size})
		return
	}
	c.run(p, size, off)
}

func (c *compiler) fields(p *program, t reflect.Type, off uintptr, name string, last bool) error {
	if err := c.enter(t, name); err != nil {
		return err
	}
	defer c.leave()
	optional := false
	for i := range t.NumField() {
		f := t.Field(i)
		at := name + "." + f.Name
		if !f.IsExported() {
			return c.no(at, "the field is not exported")
		}
		if f.Type.Kind() == reflect.Pointer && !(c.isRef != nil && c.isRef(f.Type)) && last && len(c.path) == 1 {
			optional = true
			if err := c.optional(p, f.Type.Elem(), off+f.Offset, at); err != nil {
				return err
			}
			continue
		}
		if optional {
			return c.no(at, "it follows an optional field and is not optional")
		}
		if err := c.add(p, f.Type, off+f.Offset, at, last); err != nil {
			return err
		}
	}
	return nil
}

// enter notes that t is being compiled; a type inside itself has no end.
func (c *compiler) enter(t reflect.Type, name string) error {
	for _, outer := range c.path {
		if outer == t {
			return c.no(name, "%s contains itself", t)
		}
	}
	c.path = append(c.path, t)
	return nil
}

func (c *compiler) leave() { c.path = c.path[:len(c.path)-1] }

// part compiles an element or an optional field's value.
func (c *compiler) part(t reflect.Type, name string) (*program, error) {
	p := &program{}
	if err := c.add(p, t, 0, name, false); err != nil {
		return nil, err
	}
	if len(p.ops) == 1 {
		o := &p.ops[0]
		p.row = o.off == 0 && o.n == t.Size() && (o.kind == opCopy || o.kind <= op64 && !c.swap)
	}
	return p.sum(), nil
}

func (c *compiler) optional(p *program, t reflect.Type, off uintptr, name string) error {
	elem, err := c.part(t, name)
	if err != nil {
		return err
	}
	if elem.min == 0 {
		return c.no(name, "%s may take no byte, so nothing would tell whether it is there", t)
	}
	p.ops = append(p.ops, op{kind: opOptional, off: off, elem: elem, typ: t})
	return nil
}

func (c *compiler) slice(p *program, t reflect.Type, off uintptr, name string) error {
	if t.Elem().Kind() == reflect.Uint8 {
		p.ops = append(p.ops, op{kind: opBytes, off: off})
		return nil
	}
	elem, err := c.part(t.Elem(), name+"[]")
	if err != nil {
		return err
	}
	if elem.min == 0 {
		return c.no(name, "an element may take no byte, so nothing would bound their number")
	}
	p.ops = append(p.ops, op{kind: opSlice, off: off, elem: elem, stride: t.Elem().Size(), typ: t})
	return nil
}

func (c *compiler) array(p *program, t reflect.Type, off uintptr, name string) error {
	elem, err := c.part(t.Elem(), name+"[]")
	if err != nil {
		return err
	}
	switch {
	case t.Len() == 0 || len(elem.ops) == 0:
	case elem.row:
		c.run(p, t.Size(), off)
	default:
		p.ops = append(p.ops, op{kind: opArray, off: off, n: uintptr(t.Len()), elem: elem, stride: t.Elem().Size()})
	}
	return nil
}
