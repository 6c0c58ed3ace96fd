package kernel

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"sync/atomic"

	"github.com/sluicerpc/sluice/conn"
)

// What is here calls the program's functions: hooks, what it has given for dialling and
// listening, its connections, its protocols. One that panics or ends its goroutine is an
// error of what it was called for, counted and logged with its stack; one that does not
// return is left behind.

// A hookError is the error of a function of the program's that has not returned as it
// should have.
type hookError struct{ function, what string }

func (e *hookError) Error() string { return e.function + " " + e.what }

// panicked counts and logs a handler's panic. A nil r means that the handler ended its
// goroutine.
func (ep *endpoint) panicked(method string, peer net.Addr, r any) {
	ep.logPanic(context.Background(), "sluice: handler panicked", "method", method, peer, r)
}

// faulted counts and logs the panic of another function of the program's, and returns the
// error of what it was called for.
func (ep *endpoint) faulted(function string, peer net.Addr, r any) error {
	return ep.faultedIn(context.Background(), function, peer, r)
}

func (ep *endpoint) faultedIn(ctx context.Context, function string, peer net.Addr, r any) error {
	if n, ok := r.(conn.Nonsense); ok {
		ep.logger.ErrorContext(ctx, "sluice: hook returned nonsense", "hook", function, "peer", peer, "result", string(n))
		return &hookError{function, string(n)}
	}
	ep.logPanic(ctx, "sluice: hook panicked", "hook", function, peer, r)
	if r == nil {
		return &hookError{function, "called runtime.Goexit"}
	}
	return &hookError{function, "panicked"}
}

func (ep *endpoint) logPanic(ctx context.Context, text, what, name string, peer net.Addr, r any) {
	ep.panics.Add(1)
	if r == nil {
		r = "runtime.Goexit"
	}
	ep.logger.ErrorContext(ctx, text, what, name, "peer", peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}

// fault is faulted for a connection to peer, on any goroutine.
func (ep *endpoint) fault(peer net.Addr) conn.Fault {
	return func(function string, r any) error { return ep.faultedIn(soon, function, peer, r) }
}

// hook calls f, one of the program's functions. If f panics, or ends its goroutine, that is
// counted and logged as a handler's panic is, and hook returns an error that names it; so
// does an error whose text can't be had.
func (ep *endpoint) hook(function string, peer net.Addr, f func() error) (err error) {
	returned := false
	defer func() {
		if r := recover(); !returned {
			err = ep.faulted(function, peer, r)
		}
	}()
	if err = f(); err != nil {
		conn.AskError(err)
	}
	returned = true
	return err
}

// A bounded is a call of a function of the program's that is waited for as long as a context
// lives.
type bounded[T any] struct {
	ep       *endpoint
	function string         // its name, for errors and the log
	peer     net.Addr       // for the log
	late     func(T)        // takes what it returns after that; may be nil
	over     atomic.Bool    // it has returned, or nobody waits any more
	results  chan result[T] // of one element
}

type result[T any] struct {
	v   T
	err error
}

// within calls f in a goroutine and returns its result, or an error when ctx ends. A
// function that ignores its context holds up nothing but its goroutine; late, which may be
// nil, takes what it returns in the end.
func within[T any](ctx context.Context, ep *endpoint, function string, peer net.Addr, f func() (T, error), late func(T)) (T, error) {
	b := &bounded[T]{ep: ep, function: function, peer: peer, late: late, results: make(chan result[T], 1)}
	go b.run(f)
	select {
	case r := <-b.results:
		return r.v, r.err
	case <-ctx.Done():
	}
	if b.over.Swap(true) { // it has just returned
		r := <-b.results
		return r.v, r.err
	}
	var none T
	return none, fmt.Errorf("%s has not returned: %w", function, context.Cause(ctx))
}

func (b *bounded[T]) run(f func() (T, error)) {
	var r result[T]
	defer func() { // also if f ends the goroutine
		if !b.over.Swap(true) {
			b.results <- r
		} else if b.late != nil && r.err == nil {
			_ = b.ep.hook(b.function, b.peer, func() error { b.late(r.v); return nil })
		}
	}()
	r.err = &hookError{b.function, "called runtime.Goexit"}
	err := b.ep.hook(b.function, b.peer, func() (err error) {
		r.v, err = f()
		return err
	})
	r.err = err
}
