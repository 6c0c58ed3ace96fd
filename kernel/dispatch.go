package kernel

import (
	"context"

	"github.com/sluicerpc/sluice/conn"
)

// dispatch gets an offer to its handler. It runs on the reader and does not
// wait.
func (h *host) dispatch(o *Offer, e entry) {
	if e.stream == nil && e.offer == nil && h.authorize == nil {
		h.queue(o)
		return
	}
	if j := (job{o, e}); o.conn.running.enter(j) {
		go h.work(j)
	}
}

// work serves an offer in its own goroutine, and then others of the connection.
func (h *host) work(j job) {
	over := false
	defer func() {
		if over {
			return
		}
		// The handler called runtime.Goexit: those that wait need another goroutine.
		if j, ok, _ := j.o.conn.running.leave(nil); ok {
			go h.work(j)
		}
	}()
	running := &j.o.conn.running
	for ok := true; ok; {
		h.run(j.o, j.e)
		j, ok = running.next(&h.timers)
	}
	over = true
}

// run serves one offer.
func (h *host) run(o *Offer, e entry) {
	returned := false
	defer h.recovered(o, &returned)
	defer o.handlerReturned()
	if h.authorized(o) {
		h.serve(o, e)
	}
	returned = true
}

func (h *host) serve(o *Offer, e entry) {
	switch {
	case e.stream != nil:
		o.receiveRequest()
		h.runStream(o, e)
	case e.offer != nil:
		o.receiveRequest()
		err := e.offer(o.streams[0].Context(), o)
		h.unanswered(o, err)
	default:
		h.queue(o)
	}
}

// authorized asks the program, and refuses the offer if it says no, or nothing
// in time.
func (h *host) authorized(o *Offer) bool {
	if h.authorize == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(o.streams[0].Context(), h.limits.Authenticate)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		o.reject(&conn.Refusal{Code: CodeUnavailable, Reason: "authorisation takes too long", NotProcessed: true})
	})
	defer stop()
	err := h.authorize(ctx, o.conn.identity, o.Method(), o.metadata)
	if !stop() {
		return false
	}
	if err == nil {
		return true
	}
	code, reason := StatusOf(err)
	if code == CodeUnknown {
		code = CodePermissionDenied
	}
	o.reject(&conn.Refusal{Code: code, Reason: reason, NotProcessed: true})
	return false
}

// runStream runs a handler of Server.Handle. Its stream is accepted by its first
// use, and ends as the handler does.
func (h *host) runStream(o *Offer, e entry) {
	s := o.streams[0]
	defer s.c.EndContext()
	s.c.lazy.Store(o)
	err := e.stream(s.Context(), s)
	s.Finish(err)
}

// unanswered is what becomes of an offer whose handler has returned.
func (h *host) unanswered(o *Offer, err error) {
	code, reason := CodeFailedPrecondition, "not accepted"
	if err != nil {
		code, reason = StatusOf(err)
	}
	o.mu.Lock()
	answered := o.answered
	o.mu.Unlock()
	if !answered {
		o.Reject(code, reason)
		return
	}
	if err != nil {
		for _, s := range o.streams {
			s.c.Finish(code, reason, s.c.trailer())
		}
	}
}

// recovered turns a handler's panic, or its goroutine's exit, into the end of its
// stream.
func (h *host) recovered(o *Offer, returned *bool) {
	r := recover()
	if *returned {
		return
	}
	h.panicked(o.Method(), o.conn.peer.Addr, r)
	for _, s := range o.streams {
		s.Abort(CodeInternal, "the handler panicked")
	}
}

// queue puts an offer into Offers, or refuses it: nobody is waited for.
func (h *host) queue(o *Offer) {
	o.setPending()
	select {
	case h.offers <- o:
	default:
		o.reject(&conn.Refusal{Code: CodeResourceExhausted, Reason: "too many offers wait", NotProcessed: true})
	}
}
