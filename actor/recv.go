package actor

import (
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

func violation(c frame.Code, format string, args ...any) error {
	return &frame.Violation{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// Deliver takes over whole messages that arrived in order. It is called by the
// connection's reader only, and never waits. An error is a
// *frame.Violation.
func (s *Stream) Deliver(run *pool.Queue, now time.Time) error {
	s.mu.Lock()
	defer s.unlock()
	cost := run.Cost()

	if keep, err := s.admit(cost); !keep {
		s.discard(cost, run.Bytes())
		run.Release()
		return err
	}
	if s.asm != nil && s.asm.active {
		run.Release()
		return violation(frame.CodeProtocol, "a message inside a fragmented one")
	}
	if n := s.tooLong(run); n > 0 {
		s.abort(s.fail(frame.CodeTooLarge, fmt.Sprintf("message of %d bytes, limit %d", n, s.cfg.MaxReceive), false))
		s.discard(cost, run.Bytes())
		run.Release()
		return nil
	}
	s.enqueue(run, now)
	return nil
}

// tooLong returns the length of a message beyond the limit, 0 if there is none. A
// run that is within it as a whole need not be looked through.
func (s *Stream) tooLong(run *pool.Queue) int {
	most := 0
	if run.Bytes() <= s.cfg.MaxReceive {
		return 0
	}
	for range run.Len() {
		m, _ := run.Pop()
		most = max(most, m.Len())
		run.Push(m)
	}
	if most <= s.cfg.MaxReceive {
		return 0
	}
	return most
}

// admit checks that bytes may arrive, and tells whether to keep them.
func (s *Stream) admit(cost int) (bool, error) {
	if !s.st.dataAllowed() {
		s.win.recvd += uint64(cost)
		s.abort(s.fail(frame.CodeStreamState, "data after the end", false))
		return false, frame.ErrFault
	}
	if !s.cfg.granted() {
		s.win.recvd += uint64(cost)
		keep := s.st.wantsData() && !s.cfg.NoReceive
		if keep && s.overCap() {
			return false, s.resetOverCap()
		}
		return keep, nil
	}
	if !s.win.arrive(cost) {
		return false, violation(frame.CodeFlowControl, "stream %d: %d bytes beyond its credit",
			s.link.ID(), s.win.recvd-s.win.granted)
	}
	return s.st.wantsData() && !s.cfg.NoReceive, nil
}

// discard returns the connection's credit of what arrives and is dropped, n bytes
// of payload.
func (s *Stream) discard(cost, n int) {
	s.win.taken += uint64(cost)
	s.later().taken += int32(cost)
	s.consumed(n)
	s.renewUnread()
}

// consumed counts payload that is not here any more, for protocols that report it.
func (s *Stream) consumed(n int) {
	if s.cfg.Caps.Pacing == frame.Reported && !s.st.done {
		s.win.payload += uint64(n)
		s.report()
	}
}

// returnEvery is how much of the connection's credit a stream may gather before
// it returns it, while more waits to be taken; at most a quarter of its window, so
// that many streams that are read no more keep little from others.
const returnEvery = 1 << 10

// giveBack returns the connection's credit of what had been kept.
func (s *Stream) giveBack(cost int) {
	w := &s.win
	if w.settled {
		w.gathered -= int32(cost)
		return
	}
	w.taken += uint64(cost)
	if w.gathered += int32(cost); int(w.gathered) >= min(returnEvery, w.size/4) || s.in.Len() == 0 {
		s.later().taken += w.gathered
		w.gathered = 0
	}
}

// enqueue puts messages into the mailbox, or further if there is nothing before
// them.
func (s *Stream) enqueue(run *pool.Queue, now time.Time) {
	if s.ends != nil && s.ends.first != firstData {
		s.divert(run)
	}
	s.in.Append(run)
	f := s.f
	if f == nil {
		return
	}
	if f.idle != nil {
		f.idle.traffic(now)
	}
	s.offer(f)
}

// offer hands the mailbox to whoever reads it.
func (s *Stream) offer(f *faces) {
	switch {
	case s.pumping || s.in.Len() == 0:
	case f.face == faceIn:
		s.push(f)
		if s.in.Len() > 0 {
			s.startPump(f)
		}
	case f.face == faceBatches:
		s.startPump(f)
	default:
		f.wakeReceiver()
	}
}

// took counts a message as taken by the application.
func (s *Stream) took(m pool.Message) {
	var h handed
	h.add(m.Len(), pool.Cost(m), s.isPaid(m))
	s.settle(&h)
}

func (s *Stream) tookPaid(a *assembly) {
	a.paid = pool.Message{}
	s.returnBudget(a)
	if a.active {
		a.paying = true
		s.credit(a.cost, 0)
		a.cost = 0
		return
	}
	s.asm = nil
}

// returnBudget gives back what was reserved for a message that is gone. What
// one arriving has reserved stays.
func (s *Stream) returnBudget(a *assembly) {
	keep := 0
	if a.active {
		keep = a.m.Len()
	}
	s.link.Assemble(keep - a.reserve)
	a.reserve = keep
}

// credit returns cost, of n bytes of messages, to the connection and, at half the
// window, to the peer.
func (s *Stream) credit(cost, n int) {
	s.giveBack(cost)
	s.consumed(n)
	if s.st.recv == recvOpen {
		s.renew()
	}
	if s.f != nil && s.f.idle != nil {
		s.f.idle.taken()
	}
}

// Fragment takes a piece of a message, a Data frame. It is called by the connection's
// reader only. The payload is copied.
func (s *Stream) Fragment(f *frame.Frame, now time.Time) error {
	s.mu.Lock()
	defer s.unlock()
	p, cost := f.Payload, f.Cost
	keep, err := s.admit(cost)
	if err == nil && keep {
		keep, err = s.begin(f.First, f.Total)
	}
	if !keep || err != nil {
		s.discard(cost, len(p))
		return err
	}
	a := s.asm
	if err := s.lengthAllows(a, len(p), f.Last); err != nil {
		return err
	}
	if a.total == frame.UnknownTotal && a.got+len(p) > s.cfg.MaxReceive {
		s.discard(cost, len(p))
		return s.tooLarge(a.got + len(p))
	}
	if !s.fit(a, len(p)) {
		s.discard(cost, len(p))
		return frame.ErrFault
	}
	a.got += copy(a.m.Bytes()[a.got:], p)
	a.whole += cost
	if a.paying {
		s.credit(cost, len(p))
	} else {
		a.cost += cost
	}
	if f.Last {
		s.complete(a, now)
	}
	return nil
}

// begin checks a piece against what came before and starts a message.
func (s *Stream) begin(first bool, total int) (bool, error) {
	a := s.asm
	active := a != nil && a.active
	if first == active {
		return false, violation(frame.CodeProtocol, "fragments of two messages are mixed")
	}
	if active {
		return true, nil
	}
	if total > s.cfg.MaxReceive {
		return false, s.tooLarge(total)
	}
	if a == nil {
		a = &assembly{}
		s.asm = a
	}
	a.active, a.total, a.got, a.cost, a.whole = true, total, 0, 0, 0
	a.paying = a.paid.IsZero() && s.cfg.Caps.Pacing != frame.Reported
	a.m = pool.Message{}
	return true, nil
}

func (s *Stream) tooLarge(n int) error {
	s.abort(s.fail(frame.CodeTooLarge, fmt.Sprintf("message of %d bytes, limit %d", n, s.cfg.MaxReceive), false))
	return frame.ErrFault
}

// lengthAllows checks n more bytes against what was announced, if anything was.
func (s *Stream) lengthAllows(a *assembly, n int, last bool) error {
	got := a.got + n
	if a.total != frame.UnknownTotal && (got > a.total || last && got != a.total) {
		return violation(frame.CodeProtocol, "fragments of %d bytes and more, announced %d", got, a.total)
	}
	return nil
}

// fit makes room for n more bytes: what was announced as far as that is believed, then
// growFactor times as much each time. It resets the stream if the budget is used up.
func (s *Stream) fit(a *assembly, n int) bool {
	need := a.got + n
	if need <= a.m.Len() && !a.m.IsZero() {
		return true
	}
	size := min(a.total, max(growFactor*a.m.Len(), need, s.believed()))
	if a.total == frame.UnknownTotal {
		size = min(s.cfg.MaxReceive, max(unknownGrowth*a.m.Len(), 2*need))
	}
	if !s.link.Assemble(size - a.m.Len()) {
		s.abort(s.fail(frame.CodeResourceExhausted, "no memory left for messages in fragments", false))
		return false
	}
	a.reserve += size - a.m.Len()
	m := pool.New(size)
	if !a.m.IsZero() {
		copy(m.Bytes(), a.m.Bytes()[:a.got])
		a.m.Release()
	}
	a.m = m
	return true
}

// complete moves an assembled message to the mailbox.
func (s *Stream) complete(a *assembly, now time.Time) {
	m, full := a.m, a.m.Len()
	if full > a.got { // its length was not known
		m.Truncate(a.got)
	}
	pool.SetCost(m, a.whole)
	a.active, a.m = false, pool.Message{}
	if a.paying {
		a.paid, a.owed = m, a.whole
	} else { // within the window, like any other message
		s.link.Assemble(-full)
		a.reserve -= full
		if a.paid.IsZero() {
			s.asm = nil
		}
	}
	var run pool.Queue
	run.Push(m)
	s.enqueue(&run, now)
}

// dropAssembly forgets a message that will not be complete.
func (s *Stream) dropAssembly() {
	a := s.asm
	if a == nil || !a.active {
		return
	}
	a.m.Release()
	a.active, a.m = false, pool.Message{}
	s.giveBack(a.cost)
	s.consumed(a.got)
	a.cost = 0
	s.returnBudget(a)
	if a.paid.IsZero() {
		s.asm = nil
	}
}

// dropIn lets go what has arrived and was not taken.
func (s *Stream) dropIn() {
	for m, ok := s.in.Pop(); ok; m, ok = s.in.Pop() {
		cost := pool.Cost(m)
		if a := s.asm; a != nil && m == a.paid {
			s.tookPaid(a)
			cost = 0
		}
		s.consumed(m.Len())
		m.Release()
		s.giveBack(cost)
	}
	s.dropAssembly()
}

// recvOver: nothing more will arrive. Readers are told when what is here was
// taken.
func (s *Stream) recvOver() {
	if s.st.recv != recvEnded {
		s.dropAssembly()
	}
	f := s.f
	if f == nil {
		return
	}
	s.closeFaces(f)
	f.wakeReceiver()
}

// Accepted takes the peer's answer to our Open, unless it has one or is over. With
// follows the reply is the first message that comes.
func (s *Stream) Accepted(reply pool.Message, header frame.Metadata, g frame.Grant, follows bool) bool {
	s.mu.Lock()
	defer s.unlock()
	if s.answered || s.st.done {
		reply.Release()
		return false
	}
	if !reply.IsZero() || len(header) > 0 {
		m := s.more()
		m.reply, m.header = reply, header
	}
	if g.Limit > 0 {
		s.limitWindow(int(min(g.Limit, 1<<30)))
	}
	if g.NoReceive {
		s.deaf = true
		s.sendOver()
	}
	if follows {
		s.more().first = firstReply
	} else {
		s.answer()
	}
	if !s.cfg.granted() {
		s.requeue() // data has waited for the answer
		return true
	}
	s.grantSend(g.Credit)
	return true
}

// Establish accepts the stream with its final configuration, and returns what
// the peer may send in all.
func (s *Stream) Establish(cfg *Config) uint64 {
	s.mu.Lock()
	defer s.unlock()
	s.cfg = cfg
	s.cred.relimit(cfg)
	if cfg.IdleTimeout > 0 && !s.st.done {
		s.face().idle = newIdler(s, cfg.IdleTimeout)
	}
	w := &s.win
	switch {
	case !cfg.granted():
		if cfg.NoReceive {
			s.apply(s.st.closeReceive())
		}
		return 0
	case s.st.retired:
		w.size = max(cfg.Window, cfg.Caps.MinWindow())
		s.shrink(0)
		return w.granted
	case cfg.NoReceive:
		s.shrink(0)
		w.most = 0
		s.apply(s.st.closeReceive())
		return w.granted
	}
	w.size, w.most = max(cfg.Window, cfg.Caps.MinWindow()), max(cfg.MaxWindow, cfg.Window, cfg.Caps.MinWindow())
	w.granted = max(w.granted, w.taken+uint64(w.size))
	return w.granted
}

// limitWindow keeps the window within what the peer wants to have unread.
func (s *Stream) limitWindow(n int) {
	n = max(n, s.cfg.Caps.MinWindow())
	w := &s.win
	w.most = min(w.most, n)
	if w.size > n {
		s.shrink(n)
	}
	w.granted = max(min(w.granted, uint64(n)), w.recvd)
}

// PeerGrant takes the peer's new total.
func (s *Stream) PeerGrant(total uint64) error {
	s.mu.Lock()
	defer s.unlock()
	if !s.cfg.granted() {
		s.peerReport(total)
		return nil
	}
	if total > s.cred.sent+maxAhead {
		return violation(frame.CodeFlowControl, "stream %d: credit %d is too far ahead", s.link.ID(), total)
	}
	s.grantSend(total)
	return nil
}

// maxAhead is how far a grant may be ahead of what was sent.
const maxAhead = 1 << 31

func (s *Stream) grantSend(total uint64) {
	s.cred.grant(total)
	s.admitWaiting()
	s.requeue()
}

// AddCredit changes what may be sent by delta, up or down: the peer has changed the
// credit that streams begin with.
func (s *Stream) AddCredit(delta int64) {
	s.mu.Lock()
	defer s.unlock()
	if !s.cfg.granted() {
		return
	}
	s.cred.granted = uint64(max(int64(s.cred.granted)+delta, 0))
	s.admitWaiting()
	s.requeue()
}

// PeerEnd takes the end of the peer's half: code OK is the end in order.
func (s *Stream) PeerEnd(code frame.Code, reason string, trailer frame.Metadata) error {
	s.mu.Lock()
	defer s.unlock()
	if a := s.asm; a != nil && a.active && s.st.recv == recvOpen {
		return violation(frame.CodeProtocol, "a stream's end inside a message")
	}
	fx, ok := s.st.peerEnded()
	if !ok {
		s.abort(s.fail(frame.CodeStreamState, "a second end", false))
		return frame.ErrFault
	}
	if s.st.recv == recvDead { // it was on its way: nothing changes any more
		return nil
	}
	if len(trailer) > 0 {
		s.more().trailer = trailer
	}
	if n := trailer.Size() + len(reason); n > 0 {
		s.link.Keep(n)
	}
	if code != frame.CodeOK {
		e := s.fail(code, reason, true)
		e.Details = trailer
		s.more().recvErr = e
	}
	s.apply(fx)
	if s.cfg.NoReceive {
		s.apply(s.st.endHanded())
	}
	return nil
}

// PeerEnded: the peer's application was handed our end, after taking messages.
func (s *Stream) PeerEnded(taken uint64) error {
	s.mu.Lock()
	defer s.unlock()
	if s.st.send == sendOpen || s.st.send == sendEnding {
		return violation(frame.CodeProtocol, "stream %d: its end was handed on before it was sent", s.link.ID())
	}
	if taken < s.accepted {
		s.more().dropped = int(s.accepted - taken)
	}
	s.apply(s.st.peerHandedEnd())
	return nil
}

// PeerStopped: the peer reads no more.
func (s *Stream) PeerStopped(frame.Code) {
	s.mu.Lock()
	defer s.unlock()
	if s.st.send == sendOpen || s.st.send == sendEnding {
		s.more().stopped = true
	}
	s.apply(s.st.peerStopped())
}

// PeerReset: the peer ended both halves.
func (s *Stream) PeerReset(code frame.Code, reason string) {
	s.mu.Lock()
	defer s.unlock()
	s.lose(s.fail(code, reason, true))
}

// Refused: the peer did not accept our Open.
func (s *Stream) Refused(code frame.Code, reason string, notProcessed bool) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(code, reason, true)
	e.Refused, e.NotProcessed = true, notProcessed
	s.lose(e)
	s.dropIn()
}

// Held is how many bytes wait unread, and how many were ever taken. What the
// goroutine that feeds In has in hand is not taken.
func (s *Stream) Held() (int, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(s.win.recvd - s.win.taken)
	if s.asm != nil {
		n += s.asm.reserve
	}
	return n, s.win.taken
}

// Unread is how many bytes of credit wait unread, also when the stream is over.
func (s *Stream) Unread() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.win.settled {
		return int(s.win.gathered)
	}
	return int(s.win.recvd - s.win.taken)
}

// Evict resets the stream and drops what waits unread, for want of memory.
func (s *Stream) Evict(reason string) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(frame.CodeResourceExhausted, reason, false)
	if s.st.recv == recvEnded && (s.in.Len() > 0 || s.pumping) && s.more().recvErr == nil {
		s.more().recvErr = e // what was before the peer's end is not complete any more
	}
	s.abort(e)
	s.settleUp()
	s.dropIn()
	if e := s.ends; e != nil {
		e.header, e.trailer = nil, nil
	}
	s.stopPump()     // which waits for a reader also when the stream is over
	s.evicted = true // what the goroutine that feeds In has in hand goes when it ends
}
