package retry

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// A hedge is a call that several attempts make at the same time.
type hedge struct {
	c      *Caller
	p      *Policy
	ctx    context.Context
	method string
	req    pool.Message
	opts   *kernel.CallOptions

	results chan result // of every attempt that has failed, and of the first that has not
	over    atomic.Bool // there is such a one, or nobody waits for it
	begun   int
	failed  int
	last    result // that has failed
}

// result is what comes of an attempt.
type result struct {
	reply           pool.Message
	err             error
	header, trailer metadata.MD
	conn            *kernel.Conn
}

// call begins attempts until one is answered, or nothing is left to wait for.
func (h *hedge) call() (pool.Message, error) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel() // ends what is under way
	h.results = make(chan result, h.p.Attempts)
	h.begin(ctx)
	next := time.NewTimer(h.p.Hedge)
	defer next.Stop()
	more := true // may begin
	for more || h.failed < h.begun {
		select {
		case r := <-h.results:
			if r.err == nil {
				return h.end(r)
			}
			h.failed++
			h.last = r
			if !h.p.again(r.err) {
				return h.end(r)
			}
			if said, d, ok := pushback(r.err); said {
				more = more && ok
				next.Reset(d)
			} else {
				next.Reset(0)
			}
		case <-next.C:
			if more = more && h.begun < h.p.Attempts && h.c.budget.take(); more {
				h.begin(ctx)
				next.Reset(h.p.Hedge)
			}
		case <-h.ctx.Done():
			return h.end(result{err: context.Cause(h.ctx)})
		}
	}
	return h.end(h.last)
}

// begin begins an attempt in a goroutine of its own. What it uses is its own.
func (h *hedge) begin(ctx context.Context) {
	h.begun++
	req, opts := h.req.Share(), *h.opts
	go func() {
		var r result
		opts.Header, opts.Trailer, opts.Conn = &r.header, &r.trailer, &r.conn
		returned := false
		defer func() {
			if !returned {
				r.err = fmt.Errorf("sluice: retry of %s: the Caller has panicked: %v", h.method, recover())
			}
			switch {
			case r.err != nil:
				req.Release()
			case h.over.Swap(true): // another one was quicker
				r.reply.Release()
				return
			}
			h.results <- r
		}()
		r.reply, r.err = h.c.c.Call(ctx, h.method, req, &opts)
		returned = true
	}()
}

// end returns a result to who has called. If it is a failure, and an attempt has been answered
// just now, that counts.
func (h *hedge) end(r result) (pool.Message, error) {
	if r.err != nil && h.over.Swap(true) {
		r = h.wait()
	}
	if o := h.opts; r.conn != nil {
		if o.Header != nil {
			*o.Header = r.header
		}
		if o.Trailer != nil {
			*o.Trailer = r.trailer
		}
		if o.Conn != nil {
			*o.Conn = r.conn
		}
	}
	if r.err == nil {
		h.req.Release()
	}
	return r.reply, r.err
}

// wait returns the attempt that has been answered: its result is on the way.
func (h *hedge) wait() result {
	for {
		if r := <-h.results; r.err == nil {
			return r
		}
	}
}
