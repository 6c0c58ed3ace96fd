package kernel

import (
	"context"
	"sync/atomic"
	"time"
)

// A soundContext is a context of the program's for goroutines of ours, and for places where
// a lock is held: where a method of it panics, or ends its goroutine, it has ended.
type soundContext struct {
	of     context.Context
	broken atomic.Bool
}

// errContext is the error of a context whose methods panic.
var errContext = &hookError{"the context", "panicked"}

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

// Err implements context.Context.
func (c *soundContext) Err() (err error) {
	ok := c.call(func() {
		if err = c.of.Err(); err != nil {
			_ = err.Error()
		}
	})
	if !ok {
		return errContext
	}
	return err
}

// Value implements context.Context.
func (c *soundContext) Value(key any) (v any) {
	c.call(func() { v = c.of.Value(key) })
	return v
}

// watch calls f when c has ended, unless stop is called before.
func (c *soundContext) watch(f func()) (stop func() bool) {
	if a, ok := c.of.(afterFuncer); ok {
		return context.AfterFunc(&soundAfter{c, a}, f)
	}
	return context.AfterFunc(c, f)
}

// An afterFuncer is a context that is watched without a goroutine.
type afterFuncer interface {
	AfterFunc(f func()) (stop func() bool)
}

// A soundAfter is the soundContext of an afterFuncer.
type soundAfter struct {
	*soundContext
	a afterFuncer
}

// AfterFunc is what the context package asks for.
func (c *soundAfter) AfterFunc(f func()) (stop func() bool) {
	defer func() {
		if recover() != nil {
			c.broken.Store(true)
			stop = func() bool { return false }
			go f()
		}
	}()
	end := c.a.AfterFunc(f)
	return func() (stopped bool) {
		defer func() { _ = recover() }()
		return end()
	}
}
