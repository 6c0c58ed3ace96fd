package strm

import (
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// A stream is young right behind the answer that established it. brpc's programs can lose
// what reaches them then (seen in brpc's master of August 2026):
//   - A server writes the answer before it marks the stream as connected. If it handles a
//     message in between, what its handler writes is dropped, and so is its CLOSE. So a
//     client's data waits for Protocol.Settle. That is no certainty, so a stream on which
//     the server stays silent is asked about: a frame of an unknown type makes brpc answer
//     with an RST if it does not know the stream, and is ignored if it does.
//   - A client handles a CLOSE or RST at once, but the answer before it in a thread of its
//     own, and then fails the RPC: it was closed before it was answered. So the end of a
//     server's stream waits for Protocol.Settle, and if data came before it for the client's
//     first report, 400 ms at most.
//
// A frame of the peer's on the stream ends either wait: it knows the stream.

// lostReason is the reason of a stream that the peer was asked about, and resets without
// having written on it: it turns out not to know it, or resets it just then.
const lostReason = resetReason + ": the peer may have lost the stream before it wrote anything on it"

// greet writes a first report on a stream, of nothing: it tells a client of ours that the
// stream is connected, so that it need not wait. To one of brpc's it is no news.
func (s *Session) greet(o *frame.Out, st *stream) {
	if s.settle > 0 && st.feedback && st.sent.Load() == 0 {
		o.Buf = appendFeedback(o.Buf, st.peer, int64(st.id), 0)
	}
}

// hear notes that the peer has written on st, and ends what waited for that.
func (s *Session) hear(st *stream, typ int32) error {
	if st.heard.Load() {
		return nil
	}
	if typ != typeRST { // which comes from a peer that does not know it
		st.heard.Store(true)
	}
	if st.waits.Swap(false) {
		s.emit(frame.Frame{Kind: frame.Ready, Stream: st.id})
	}
	end := st.held.Swap(0)
	if end == 0 {
		return nil
	}
	return s.reply(func(b []byte) []byte { return s.appendEnd(b, st, end) })
}

// reportTime is for how long the end of a server's stream waits for the client's first report,
// from the answer on and from the end on.
const reportTime = retryAfter << reportList

// reportList is the list of retries that wait as long.
const reportList = 2

// holdEnd has the end of st, in held, written later if st is young, and else at once. An end in
// order behind data waits longer, since a client that reports what it has taken has handled
// the answer, however busy its machine is. It is called under the lock.
func (s *Session) holdEnd(o *frame.Out, st *stream) {
	now := o.Now()
	switch {
	case st.heard.Load(), st.young.IsZero():
		s.writeHeld(o, st)
	case s.settle > 0 && st.held.Load() == typeClose && st.sent.Load() > 0 && st.window > 0 && st.young.Add(reportTime).After(now):
		s.out.retries.add(reportList, st, now.Add(reportTime), retryEnd)
	case st.young.After(now):
		s.out.retries.add(settling, st, now.Add(s.settle), retryEnd)
	default:
		s.writeHeld(o, st)
	}
}

// writeHeld writes the end of st that was held back, unless the reader has done so. It
// is called under the lock.
func (s *Session) writeHeld(o *frame.Out, st *stream) {
	typ := st.held.Swap(0)
	if typ == 0 {
		return
	}
	o.Buf = s.appendEnd(o.Buf, st, typ)
	if typ == typeClose {
		s.out.retries.add(0, st, o.Now().Add(retryAfter), retryClose)
	}
}

// lookAfter schedules what is due to a client's streams that were established.
func (s *Session) lookAfter(sts []*stream, now time.Time) {
	for _, st := range sts {
		if st.waits.Load() {
			s.out.retries.add(settling, st, now.Add(s.settle), retryReady)
		} else {
			s.out.retries.add(0, st, now.Add(retryAfter), retryAsk)
		}
	}
}

// ready has the kernel send on a stream that has settled.
func (s *Session) ready(o *frame.Out, st *stream) {
	if st.waits.Swap(false) {
		s.emitEvent(frame.Frame{Kind: frame.Ready, Stream: st.id})
	}
	s.out.retries.add(0, st, o.Now().Add(retryAfter), retryAsk)
}

// ask asks, for the n-th time, whether the peer knows st. It does not where nothing was
// sent: then the peer has lost nothing.
func (s *Session) ask(o *frame.Out, st *stream, n int) {
	if st.sent.Load() == 0 {
		return
	}
	s.mu.Lock()
	st.lost = true
	s.lateFrames++ // an RST that comes when the stream has ended
	s.mu.Unlock()
	o.Buf = appendAsk(o.Buf, st.peer, int64(st.id))
	if n < maxRetries {
		s.out.retries.add(n, st, o.Now().Add(retryAfter<<n), retryAsk)
	}
}
