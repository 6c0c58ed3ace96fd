package kernel

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/conn"
)

// A soundContext is a context of the program's for goroutines of ours, and for places where
// a lock is held: where a method of it panics, or ends its goroutine, it has ended.
type soundContext struct {
	of     context.Context
	broken atomic.Bool
}

// The errors of contexts that have none that can be used.
var (
	errContext   = &hookError{"the context", "panicked"}
	errNoError   = &hookError{"the context", "has ended without an error"}
	errBadReason = &hookError{"the context's cause", "panicked"}
)

// sound returns ctx for what the standard library makes of it: that asks a context of the
// program's in goroutines of its own.
func sound(ctx context.Context) context.Context {
	if ctx.Done() == nil {
		return ctx
	}
	return &soundContext{of: ctx}
}

var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// call calls a method of the program's. It reports false if that is not possible.
func (c *soundContext) call(f func()) (ok bool) {
	if c.broken.Load() {
		return false
	}
	defer func() {
		if !ok {
			_ = recover()
			c.broken.Store(true)
		}
	}()
	f()
	return true
}

// Deadline implements context.Context.
func (c *soundContext) Deadline() (t time.Time, has bool) {
	c.call(func() { t, has = c.of.Deadline() })
	return t, has
}

// Done implements context.Context.
func (c *soundContext) Done() (done <-chan struct{}) {
	if !c.call(func() { done = c.of.Done() }) {
		return closedChan
	}
	return done
}

// Err implements context.Context. It is not nil when Done is closed, whatever the program's says:
// the standard library panics otherwise.
func (c *soundContext) Err() (err error) {
	over := false
	ok := c.call(func() {
		switch err = c.of.Err(); {
		case err != nil:
			conn.AskError(err)
		default:
			select {
			case <-c.of.Done():
				over = true
			default:
			}
		}
	})
	switch {
	case !ok:
		return errContext
	case over:
		return errNoError
	}
	return err
}

// cause is why c has ended, or nil.
func (c *soundContext) cause() (cause error) {
	err := c.Err()
	if err == nil {
		return nil
	}
	if cause = context.Cause(c); cause == nil {
		return err
	}
	defer func() {
		if recover() != nil {
			cause = errBadReason
		}
	}()
	conn.AskError(cause)
	return cause
}

// Value implements context.Context.
func (c *soundContext) Value(key any) (v any) {
	c.call(func() { v = c.of.Value(key) })
	return v
}

// watch calls f when c has ended, unless stop is called before. stop returns at once: it may be
// called on event loops, and a context of the program's is asked when one stops watching it. An
// AfterFunc that it has itself is not used.
func (c *soundContext) watch(f func()) (stop func()) {
	plain := isPlain(c.of)
	end := context.AfterFunc(c, f)
	return func() {
		if plain {
			end()
		} else {
			go end()
		}
	}
}

// isPlain reports whether all methods of ctx are the standard library's: they return, and at once.
func isPlain(ctx context.Context) bool {
	for {
		v := reflect.ValueOf(ctx)
		if v.Kind() != reflect.Pointer || v.Type().Elem().PkgPath() != "context" {
			return false
		}
		switch v.Type().Elem().Name() {
		case "cancelCtx", "timerCtx": // what they were made of is not asked
			return true
		case "valueCtx":
			ctx = v.Elem().FieldByName("Context").Interface().(context.Context)
		default:
			return false
		}
	}
}
