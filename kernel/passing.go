package kernel

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"

)

// A ref is a sink's or a source's place in the arguments of a call: the number
// that stands for it there. It is the first word of both, which is where the
// fixed layout finds it.
type ref struct{ id uint64 }

func (r *ref) refID() uint64 { return r.id }

func (r *ref) marshal() []byte { return strconv.AppendUint(nil, r.id, 10) }

func (r *ref) unmarshal(p []byte) (err error) {
	r.id, err = strconv.ParseUint(string(p), 10, 64)
	return err
}

// An argument is a *Sink or a *Source.
type argument interface {
	// check tells whether e carries what goes through it. The receiver may be nil.
	check(e *Encoding) error
	refID() uint64
}

// A sinkArgument is a *Sink.
type sinkArgument interface {
	argument
	place() *seat
}

// A sourceArgument is a *Source.
type sourceArgument interface {
	argument
	bind(s *Stream, e *Encoding, of *half)
}

var (
	argumentType = reflect.TypeFor[argument]()
	sinkType     = reflect.TypeFor[sinkArgument]()
)

func isArgument(t reflect.Type) bool {
	return t.Kind() == reflect.Pointer && t.Implements(argumentType)
}

// A finder finds the sinks and sources in values of a type, nil where one is missing. A
// nil finder finds none.
type finder func(v reflect.Value, each func(argument) error) error

var errNilArgument = errors.New("a sink or source is nil")

// arguments is what is known of the sinks and sources in a type.
type arguments struct {
	find           finder
	sinks, sources bool
	types          []reflect.Type // the different ones
}

func argumentsOf(t reflect.Type) arguments {
	var w walker
	w.find = w.walk(t)
	return w.arguments
}

// check tells whether e carries what goes through them.
func (a *arguments) check(e *Encoding) error {
	for _, t := range a.types {
		if err := reflect.Zero(t).Interface().(argument).check(e); err != nil {
			return err
		}
	}
	return nil
}

// checkElement tells whether e carries T through a stream. It looks into a type
// that may contain the one being looked at, and remembers nothing.
func checkElement[T any](e *Encoding) error {
	if a := argumentsOf(reflect.TypeFor[T]()); a.find != nil {
		return noElement(reflect.TypeFor[T]())
	}
	_, err := codecFor[T](e)
	return err
}

type walker struct {
	arguments
	within []reflect.Type
}

func (w *walker) walk(t reflect.Type) finder {
	if isArgument(t) {
		w.types = append(w.types, t)
		if t.Implements(sinkType) {
			w.sinks = true
		} else {
			w.sources = true
		}
		return func(v reflect.Value, each func(argument) error) error {
			if v.IsNil() {
				return each(nil)
			}
			return each(v.Interface().(argument))
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

func pointee(f finder) finder {
	if f == nil {
		return nil
	}
	return func(v reflect.Value, each func(argument) error) error {
		if v.IsNil() {
			return nil
		}
		return f(v.Elem(), each)
	}
}

func (w *walker) fields(t reflect.Type) finder {
	var at []int
	var fs []finder
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		if f := w.walk(t.Field(i).Type); f != nil {
			at, fs = append(at, i), append(fs, f)
		}
	}
	if fs == nil {
		return nil
	}
	return func(v reflect.Value, each func(argument) error) error {
		for i, f := range fs {
			if err := f(v.Field(at[i]), each); err != nil {
				return err
			}
		}
		return nil
	}
}

func elements(f finder) finder {
	if f == nil {
		return nil
	}
	return func(v reflect.Value, each func(argument) error) error {
		for i := range v.Len() {
			if err := f(v.Index(i), each); err != nil {
				return err
			}
		}
		return nil
	}
}

// each calls f with every sink and source in what v points to, until one fails.
func (a *arguments) each(v any, f func(argument) error) error {
	if a.find == nil {
		return nil
	}
	return a.find(reflect.ValueOf(v).Elem(), func(x argument) error {
		if x == nil {
			return errNilArgument
		}
		return f(x)
	})
}

// all is each, but goes on after one has failed. It returns the first error.
func (a *arguments) all(v any, f func(argument) error) (first error) {
	if a.find == nil {
		return nil
	}
	_ = a.find(reflect.ValueOf(v).Elem(), func(x argument) error {
		err := errNilArgument
		if x != nil {
			err = f(x)
		}
		if first == nil {
			first = err
		}
		return nil
	})
	return first
}

// A passage is a call that passes streams, on the caller's side.
type passage struct {
	caller Caller
	method string
	opts   *CallOptions
	seats  []*seat
	ss     []*Stream // opened for the call
	bound  []bool    // which of the seats' streams are sources of the result
}

// claim takes the sinks among the arguments that v points to.
func (p *passage) claim(a *arguments, v any) error {
	err := a.each(v, func(x argument) error {
		k := x.(sinkArgument).place()
		if err := k.claim(p.caller); err != nil {
			return err
		}
		p.seats = append(p.seats, k)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("sluice: call %s: sink %d of the request: %w", p.method, len(p.seats), err)
	} else {
		err = p.agree()
	}
	if err != nil {
		for _, k := range p.seats {
			k.unclaim()
		}
	}
	p.bound = make([]bool, len(p.seats))
	return err
}

// agree checks that the sinks can go through one call.
func (p *passage) agree() error {
	for _, k := range p.seats {
		if first := p.seats[0]; k.parent != first.parent {
			return fmt.Errorf("sluice: call %s: %w", p.method, ErrSinkForeign)
		} else if k.alone != first.alone {
			return fmt.Errorf("sluice: call %s: %w: sinks with a connection of their own and others", p.method, ErrLimits)
		}
	}
	return nil
}

// call makes the call. Where its sinks have streams already they stand in the
// request by their numbers; else the request opens them, and they stand there by
// their places. Without sinks nothing is opened, unless the wire needs that to carry
// the call as what it is.
func (p *passage) call(ctx context.Context, request func() (Message, error)) (Message, error) {
	if len(p.seats) > 0 && p.seats[0].parent != nil {
		return p.callOn(ctx, p.seats[0].parent, request)
	}
	if len(p.seats) == 0 {
		if p.caller.Caps().StreamsByID {
			return p.callOn(ctx, p.caller, request)
		}
	}
	each := make([]StreamOptions, max(len(p.seats), 1))
	o := &OpenOptions{}
	for i, k := range p.seats {
		k.id = uint64(i)
		each[i] = k.opts
		o.Dedicated = k.alone
		each[i].Context = k.ctx
	}
	if p.opts != nil {
		o.Metadata = p.opts.Metadata
	}
	var err error
	if o.Request, err = request(); err != nil {
		return Message{}, err
	}
	defer o.Request.Forget() // it may be on its way to the socket still
	return p.open(ctx, o, each)
}

// callOn makes a call whose streams are there, if it has any.
func (p *passage) callOn(ctx context.Context, c Caller, request func() (Message, error)) (Message, error) {
	m, err := request()
	if err != nil {
		return Message{}, err
	}
	reply, err := c.Call(ctx, p.method, m, p.opts)
	if err != nil {
		m.Release()
	}
	return reply, err
}

func (p *passage) open(ctx context.Context, o *OpenOptions, each []StreamOptions) (Message, error) {
	ctx, cancel := p.opts.Bound(ctx)
	defer cancel()
	if len(p.seats) == 0 {
		each[0].Context = context.WithoutCancel(ctx)
	}
	ss, err := p.caller.OpenN(ctx, p.method, o, each...)
	if err != nil {
		return Message{}, err
	}
	p.ss = ss
	for i, k := range p.seats {
		k.take(ss[i])
	}
	reply, _, err := ss[0].Accepted(ctx)
	if err != nil {
		return Message{}, ss[0].giveUp(ctx, err)
	}
	return reply, nil
}

// resolve gives a source of the result the stream that it stands for.
func (p *passage) resolve(x argument, e *Encoding) error {
	for i, k := range p.seats {
		if k.id != x.refID() {
			continue
		}
		s := k.stream.Load()
		if p.bound[i] || s == nil {
			break
		}
		p.bound[i] = true
		x.(sourceArgument).bind(s, e, nil)
		return nil
	}
	return fmt.Errorf("%w: the result names stream %d", ErrSinkForeign, x.refID())
}

// rest ends what the result makes no use of.
func (p *passage) rest() {
	for i, k := range p.seats {
		if s := k.stream.Load(); s != nil && !p.bound[i] {
			s.CloseReceive(CodeOK)
		}
	}
	if len(p.seats) == 0 {
		for _, s := range p.ss {
			_ = s.CloseSend()
			s.CloseReceive(CodeOK)
		}
	}
}

// fail ends the streams of a call that failed.
func (p *passage) fail(code Code, err error) {
	for _, k := range p.seats {
		k.fail(err)
	}
	for _, k := range p.seats {
		if s := k.stream.Load(); s != nil {
			s.c.abort(code, clip("the call failed: "+err.Error()), err)
		}
	}
	for _, s := range p.ss {
		s.c.abort(code, clip("the call failed: "+err.Error()), err)
	}
}

// begin opens the stream, where that comes before the call that names it.
func (k *seat) begin() error {
	if !k.caller.Caps().StreamsByID {
		return nil
	}
	conn, err := k.caller.Conn(k.ctx)
	if err != nil {
		return err
	}
	s, err := conn.Open(k.ctx, "", &OpenOptions{Stream: k.opts})
	if err != nil {
		return err
	}
	k.parent, k.id = s.CallRef()
	k.origin = s
	k.stream.Store(s)
	return nil
}
