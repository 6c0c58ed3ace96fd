package retry

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A Caller is a kernel.Caller whose calls are tried again as its policies say. Streams are not:
// Open and OpenN go to the Caller that it wraps. All methods may be called at the same time.
type Caller struct {
	c       kernel.Caller
	methods map[string]*Policy
	budget  budget
}

var _ kernel.Caller = (*Caller)(nil)

// New returns a Caller that wraps c: a kernel.Client, a fleet.Client, or any other. It fails with
// kernel.ErrLimits if an option is out of range.
func New(c kernel.Caller, opts *Options) (*Caller, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Methods == nil {
		o.Methods = map[string]Policy{"": {}}
	}
	r := &Caller{c: c, methods: map[string]*Policy{}}
	for pattern, p := range o.Methods {
		full, err := p.withDefaults()
		if err != nil {
			return nil, fmt.Errorf("retry of %q: %w", pattern, err)
		}
		r.methods[pattern] = full
	}
	return r, r.budget.init(o.Budget)
}

// policy is that of a method; nil: none.
func (c *Caller) policy(method string) *Policy {
	if p := c.methods[method]; p != nil {
		return p
	}
	if i := strings.LastIndexByte(method, '/'); i >= 0 {
		if p := c.methods[method[:i+1]]; p != nil {
			return p
		}
	}
	return c.methods[""]
}

// Call makes a unary call, and makes it again as the method's policy says. The deadline of ctx and
// opts.Timeout bound all of it; a pause that would go beyond that is not made, and the error is
// that of the last attempt. If Call succeeds, it has taken over req, and the reply belongs to the
// caller. If it fails, req still belongs to the caller. A call with NoWait is made once.
func (c *Caller) Call(ctx context.Context, method string, req pool.Message, opts *kernel.CallOptions) (pool.Message, error) {
	p := c.policy(method)
	if p == nil || p.Attempts == 1 && p.Timeout == 0 || opts != nil && opts.NoWait {
		return c.c.Call(ctx, method, req, opts)
	}
	c.budget.add()
	ctx, cancel := opts.Bound(ctx)
	defer cancel()
	var o kernel.CallOptions
	if opts != nil {
		o = *opts
	}
	if o.Timeout = kernel.Unlimited; p.Timeout > 0 {
		o.Timeout = p.Timeout
	}
	if p.Hedge > 0 && p.Attempts > 1 {
		h := &hedge{c: c, p: p, ctx: ctx, method: method, req: req, opts: &o}
		return h.call()
	}
	for n := 1; ; n++ {
		reply, err := c.c.Call(ctx, method, req, &o)
		if err == nil || n == p.Attempts || ctx.Err() != nil || !p.again(err) {
			return reply, err
		}
		d, ok := p.pause(n, err)
		if !ok || beyond(ctx, d) || !c.budget.take() || !sleep(ctx, d) {
			return reply, err
		}
	}
}

// beyond reports whether a pause is longer than ctx lives.
func beyond(ctx context.Context, d time.Duration) bool {
	end, ok := ctx.Deadline()
	return ok && time.Until(end) <= d
}

// sleep waits for d, or until ctx ends: then it reports false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Open opens a stream by the Caller that c wraps.
func (c *Caller) Open(ctx context.Context, method string, opts *kernel.OpenOptions) (*kernel.Stream, error) {
	return c.c.Open(ctx, method, opts)
}

// OpenN opens streams by the Caller that c wraps.
func (c *Caller) OpenN(ctx context.Context, method string, opts *kernel.OpenOptions, each ...kernel.StreamOptions) ([]*kernel.Stream, error) {
	return c.c.OpenN(ctx, method, opts, each...)
}

// Conn returns a connection of the Caller that c wraps.
func (c *Caller) Conn(ctx context.Context) (*kernel.Conn, error) { return c.c.Conn(ctx) }

// Caps tells what the protocol can carry.
func (c *Caller) Caps() frame.Caps { return c.c.Caps() }

// Close closes the Caller that c wraps, if that has a Close.
func (c *Caller) Close() error {
	if closer, ok := c.c.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// A budget is what retries are paid from: each call adds a part of one.
type budget struct {
	tokens    atomic.Int64 // in thousandths
	share     int64        // that each call adds
	most      int64
	unlimited bool
}

const whole = 1000 // thousandths

func (b *budget) init(o Budget) error {
	if o.Ratio == 0 {
		o.Ratio = 0.2
	}
	if o.Burst == 0 {
		o.Burst = 10
	}
	b.unlimited = o.Burst == kernel.Unlimited
	if !b.unlimited && (o.Burst < 1 || o.Burst > 1_000_000) || !(o.Ratio > 0 && o.Ratio <= mostAttempts) {
		return fmt.Errorf("%w: Budget is %+v", kernel.ErrLimits, o)
	}
	b.share, b.most = int64(o.Ratio*whole), int64(o.Burst)*whole
	b.tokens.Store(b.most)
	return nil
}

// add notes a call.
func (b *budget) add() {
	for {
		n := b.tokens.Load()
		if n >= b.most || b.tokens.CompareAndSwap(n, min(n+b.share, b.most)) {
			return
		}
	}
}

// take takes one retry out of the budget, and reports false if there is none.
func (b *budget) take() bool {
	for !b.unlimited {
		n := b.tokens.Load()
		if n < whole {
			return false
		}
		if b.tokens.CompareAndSwap(n, n-whole) {
			break
		}
	}
	return true
}
