package kernel

import (
	"context"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/status"
)

// dispatch gives an offer to its handler. The connection's reader calls it: it does not
// wait.
func (ep *endpoint) dispatch(o *Offer, e *entry) {
	if e.queue != nil && ep.authorize == nil {
		o.wait(e.queue)
		return
	}
	if j := (job{o, e}); o.conn.running.enter(j) {
		ep.begin(j)
	}
}

// begin starts a goroutine that serves j.
func (ep *endpoint) begin(j job) { go ep.work(j) }

// work runs in a goroutine. It serves an offer, and then other ones of the connection.
func (ep *endpoint) work(j job) {
	over := false
	defer func() {
		if over {
			return
		}
		// The handler called runtime.Goexit: offers that wait need another goroutine.
		if j, ok, _ := j.o.conn.running.leave(nil, j); ok {
			j.o.conn.running.starts.force()
			ep.begin(j)
		}
	}()
	running := &j.o.conn.running
	running.starts.began()
	for ok := true; ok; {
		ep.run(j.o, j.e)
		j, ok = running.next(&ep.timers, j)
	}
	over = true
}

// run serves one offer.
func (ep *endpoint) run(o *Offer, e *entry) {
	returned := false
	defer ep.recovered(o, &returned)
	defer o.handlerReturned()
	if ep.authorized(o) {
		ep.serve(o, e)
	}
	returned = true
}

func (ep *endpoint) serve(o *Offer, e *entry) {
	switch {
	case e.queue != nil:
		o.wait(e.queue)
	case o.readRequest() != nil: // its stream has failed, and nobody can answer
		o.abortRest()
	case e.stream != nil:
		ep.runStream(o, e)
	default:
		err := e.offer(o.streams[0].Context(), o)
		ep.offerReturned(o, err)
	}
}

// authorized calls the program's Authorize. It refuses the offer if that returns an error
// or takes too long.
func (ep *endpoint) authorized(o *Offer) bool {
	if ep.authorize == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(o.streams[0].Context(), ep.limits.Authenticate)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		o.reject(&conn.Refusal{Code: status.Unavailable, Reason: "authorization takes too long", NotProcessed: true}, nil)
	})
	defer stop()
	var err error
	code, reason := status.OK, ""
	failed := ep.hook("Authorize", o.conn.peer.Addr, func() error {
		err = ep.authorize(ctx, o.conn.identity, o.Method(), o.metadata)
		code, reason = status.Of(err)
		return nil
	})
	switch {
	case !stop():
		return false
	case failed != nil:
		code, reason = status.Internal, failed.Error()
	case code == status.OK:
		return true
	case code == status.Unknown:
		code = status.PermissionDenied
	}
	o.reject(&conn.Refusal{Code: code, Reason: reason, NotProcessed: true}, err)
	return false
}

// runStream runs a handler of Handlers.Handle. The handler's first use of the stream accepts
// it, and its return ends it, unless the handler has taken the offer.
func (ep *endpoint) runStream(o *Offer, e *entry) {
	s := o.streams[0]
	defer func() {
		if !o.taken.Load() {
			s.c.EndContext()
		}
	}()
	s.c.acceptOnUse.Store(o)
	err := e.stream(s.Context(), s)
	if o.taken.Load() {
		ep.offerReturned(o, err)
		return
	}
	s.Finish(err)
}

// offerReturned ends what the handler of an offer has left open.
func (ep *endpoint) offerReturned(o *Offer, err error) {
	o.mu.Lock()
	answered := o.answered
	o.mu.Unlock()
	switch {
	case !answered && err == nil:
		o.Reject(errUnanswered)
	case !answered:
		o.Reject(err)
	case err != nil:
		code, reason := status.Of(err)
		for _, s := range o.streams {
			s.c.Finish(code, reason, s.c.trailerFor(err))
		}
	}
}

// errUnanswered is the error of an offer that its handler has not answered.
var errUnanswered = &status.HandlerError{Code: status.FailedPrecondition, Reason: "not accepted"}

// recovered aborts the streams of a handler that has panicked or ended its goroutine.
func (ep *endpoint) recovered(o *Offer, returned *bool) {
	r := recover()
	if *returned {
		return
	}
	ep.panicked(o.Method(), o.conn.peer.Addr, r)
	for _, s := range o.streams {
		s.Abort(status.Internal, "the handler panicked")
	}
}

// wait puts the offer into queue, the channel of Handlers.Offers. It refuses the offer if
// the channel is full.
func (o *Offer) wait(queue chan<- *Offer) {
	o.setPending()
	select {
	case queue <- o:
	default:
		o.reject(&conn.Refusal{Code: status.ResourceExhausted, Reason: "too many offers are waiting", NotProcessed: true}, nil)
	}
}
