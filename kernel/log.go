package kernel

import (
	"context"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// logs passes records to the program's slog.Handler, one after the other. One goroutine does
// so while there are any: a handler that blocks, panics or ends its goroutine holds up and
// harms nobody else.
type logs struct {
	panics *atomic.Uint64

	mu      sync.Mutex
	waiting []*logLine
	running bool
	slow    bool // the handler was waited for in vain, and has not returned since
}

// A logLine is a record on its way.
type logLine struct {
	handle func()
	done   chan struct{} // closed when it was handled
}

const (
	mostLines = 256                    // records that wait; more are lost
	logTime   = 100 * time.Millisecond // for the handler to return before it counts as slow
)

// soon is the context of records that are not waited for: where a lock is held, and on event
// loops and timers. Other records are out before what follows can be noticed.
var soon context.Context = soonContext{context.Background()}

type soonContext struct{ context.Context }

// logger returns a Logger for of's handler.
func (q *logs) logger(of *slog.Logger) *slog.Logger {
	return slog.New(&logHandler{q: q, of: of.Handler})
}

// push has f called. It waits for that unless the handler is slow.
func (q *logs) push(f func(), wait bool) {
	l := &logLine{f, make(chan struct{})}
	q.mu.Lock()
	if len(q.waiting) >= mostLines {
		q.mu.Unlock()
		return
	}
	q.waiting = append(q.waiting, l)
	if !q.running {
		q.running = true
		go q.run()
	}
	wait = wait && !q.slow
	q.mu.Unlock()
	if !wait {
		return
	}
	limit := time.NewTimer(logTime)
	defer limit.Stop()
	select {
	case <-l.done:
	case <-limit.C:
		q.mu.Lock()
		q.slow = q.running
		q.mu.Unlock()
	}
}

// run is the goroutine that calls the handler.
func (q *logs) run() {
	ended := false
	defer func() {
		if !ended {
			go q.run() // the handler has called runtime.Goexit
		}
	}()
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.waiting, q.running, q.slow = nil, false, false
			q.mu.Unlock()
			break
		}
		l := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		q.call(l)
	}
	ended = true
}

func (q *logs) call(l *logLine) {
	returned := false
	defer func() {
		_ = recover()
		if !returned {
			q.panics.Add(1) // where should that be logged?
		}
		q.mu.Lock()
		q.slow = false
		q.mu.Unlock()
		close(l.done)
	}()
	l.handle()
	returned = true
}

// A logHandler is the slog.Handler of logs.
type logHandler struct {
	q  *logs
	of func() slog.Handler // the program's, called where it may harm nobody
}

// Enabled implements slog.Handler. Only a handler of the standard library is asked here.
func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool {
	of := h.of()
	if t := reflect.TypeOf(of); t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "log/slog" {
		return of.Enabled(ctx, l)
	}
	return true
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	wait := ctx != soon
	if !wait {
		ctx = context.Background()
	}
	r = r.Clone()
	h.q.push(func() {
		if of := h.of(); of.Enabled(ctx, r.Level) {
			_ = of.Handle(ctx, withText(r))
		}
	}, wait)
	return nil
}

// withText returns r with addresses as text: as JSON they would be objects, of another shape for
// each kind of address.
func withText(r slog.Record) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if addr, ok := a.Value.Any().(net.Addr); ok {
			a.Value = slog.StringValue(addr.String())
		}
		out.AddAttrs(a)
		return true
	})
	return out
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &logHandler{h.q, sync.OnceValue(func() slog.Handler { return h.of().WithAttrs(as) })}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.q, sync.OnceValue(func() slog.Handler { return h.of().WithGroup(name) })}
}
