package conn

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// ackEvery is how many bytes are read before the peer is told, as a part of what
// it keeps in flight at first.
const reportEvery = 64 << 10

// input is what the reader owns.
type input struct {
	run   pool.Queue // whole messages of one stream, in a row
	port  *Port      // whose they are
	now   time.Time
	arena *pool.Arena

	bytesRead  uint64 // bytes read
	soleSender *Port  // the stream that the last data was for
	soleFrom   uint64 // raw when the first of it in a row came

	reported uint64 // of them, what the peer was told
	used     uint64 // credit used by the peer
	limit    uint64 // credit that it has
	messages int    // messages in this burst
}

// Input takes what was read: p is valid during the call. It is called by one
// goroutine at a time and never waits. It returns false when the connection has
// ended.
func (c *Conn) Input(p []byte) bool {
	in := &c.in
	in.now = time.Now()
	c.keeper.heard(in.now)
	in.bytesRead += uint64(len(p))
	in.messages = 0
	in.arena = pool.GetArena()
	c.out.cork()
	err := c.decode(p)
	if derr := c.deliver(); err == nil {
		err = derr
	}
	pool.PutArena(in.arena)
	in.arena, in.port = nil, nil
	c.creditSeen.Store(in.used)
	if c.pacing == frame.Granted { // what was taken during this input was measured without it
		told := c.advertised.Load()
		if n := c.returned.Load() - told; n > 0 && n >= c.peerCredit(told) {
			c.out.requestControl(c, func(o *output) { o.credit = true })
		}
	}
	if n := int64(c.sess.Buffered()); n != c.buffered.Load() {
		c.buffered.Store(n)
	}
	c.keeper.received(c)
	c.reportRead()
	if err != nil {
		c.violated(err)
	}
	c.out.uncork(c, in.messages)
	return err == nil
}

// acknowledge tells the peer how much was read, so that it keeps the bytes in
// flight few: what delays a small message is what was sent before it and not
// read yet.
func (c *Conn) reportRead() {
	if !c.caps.ReadReports {
		return
	}
	in := &c.in
	switch unacked := in.bytesRead - in.reported; {
	case unacked < reportEvery/2:
		return
	case c.out.isDue(): // it can travel along
	case unacked < reportEvery:
		return
	case unacked < soleFactor*reportEvery && in.bytesRead-in.soleFrom >= 2*soleAfter && c.tr.more():
		return
	}
	in.reported = in.bytesRead
	c.out.requestRead(in.bytesRead)
}

func (c *Conn) decode(p []byte) error {
	f := frame.GetFrame(frame.None) // as large as a fifth of a connection, and used by one at a time
	defer frame.PutFrame(f)
	for {
		n, err := c.sess.Next(p, f)
		p = p[n:]
		switch {
		case err != nil:
			return err
		case f.Kind == frame.None:
			return nil
		case f.Kind == frame.Data:
			if err = c.data(f); err == nil && c.in.run.Len() > 0 {
				n, err = c.run(f.Stream, p)
				p = p[n:]
			}
		default:
			if err = c.deliver(); err == nil {
				err = c.control(f)
			}
		}
		if err != nil {
			return err
		}
	}
}

// violated ends the connection for what the peer did.
func (c *Conn) violated(err error) {
	var pe *frame.ProtocolError
	var v *frame.Violation
	switch {
	case errors.As(err, &pe):
		c.Fail("read", pe.Code, err)
	case errors.As(err, &v):
		c.Fail("read", v.Code, &frame.ProtocolError{
			Proto: c.caps.Name, Code: v.Code, Offset: int64(c.in.bytesRead), Detail: v.Detail,
		})
	default:
		c.end(c.peerEnded(err), false)
	}
}

// peerGone is the peer's goodbye with a code.
type goAwayError struct {
	code   frame.Code
	reason string
}

func (e *goAwayError) Error() string {
	if e.reason == "" {
		return e.code.String()
	}
	return e.code.String() + ": " + e.reason
}

func (c *Conn) peerEnded(err error) *Error {
	e := &Error{Addr: c.cfg.Remote, Op: "read", Code: frame.CodeConnectionLost, Err: err}
	var g *goAwayError
	if errors.As(err, &g) {
		e.Code, e.Remote = g.code, true
	}
	return e
}

func violation(c frame.Code, format string, args ...any) error {
	return &frame.Violation{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// data takes a message or a piece of one.
func (c *Conn) data(f *frame.Frame) error {
	in := &c.in
	if in.used += uint64(f.Cost); in.used > in.limit {
		if err := c.overLimit(); err != nil {
			return err
		}
	}
	p := in.port
	if p == nil || p.id.Load() != f.Stream {
		if err := c.deliver(); err != nil {
			return err
		}
		if p = c.find(f.Stream); p == nil {
			return c.dataForGone(f)
		}
		in.port = p
		if p != in.soleSender {
			in.soleSender, in.soleFrom = p, in.bytesRead
		}
	}
	if f.First && f.Last {
		in.messages++
		m := in.arena.Copy(f.Payload)
		pool.SetCost(m, f.Cost)
		in.run.Push(m)
		return nil
	}
	if err := c.deliver(); err != nil {
		return err
	}
	in.port = p
	return c.countFault(p.s.Fragment(f, in.now))
}

// moreOf takes what follows in p of the messages of the stream at hand, as data
// would one by one, and returns how many bytes of p that was.
func (c *Conn) run(id uint64, p []byte) (int, error) {
	in := &c.in
	had, cost := in.run.Len(), in.run.Cost()
	n := c.sess.Run(p, id, in.arena, &in.run)
	in.messages += in.run.Len() - had
	if in.used += uint64(in.run.Cost() - cost); in.used > in.limit {
		return n, c.overLimit()
	}
	return n, nil
}

// deliver hands the messages in hand to their stream.
func (c *Conn) deliver() error {
	in := &c.in
	if in.run.Len() == 0 {
		return nil
	}
	err := in.port.s.Deliver(&in.run, in.now)
	in.run = pool.Queue{}
	return c.countFault(err)
}

func (c *Conn) find(id uint64) *Port {
	if p := c.table.find(id); p != nil {
		return p
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.get(id)
}

// judge counts streams that were reset for what the peer sent, as resets of the
// peer's own: both cost us the same.
func (c *Conn) countFault(err error) error {
	if err == frame.ErrFault { //nolint:errorlint // never wrapped
		return c.abuse.reset(c.in.now)
	}
	return err
}

// strayData drops data for a stream that is gone. Its credit goes back. A peer
// can have had so much on its way when it heard of a stream's end, once for each.
func (c *Conn) dataForGone(f *frame.Frame) error {
	if err := c.checkGone(f); err != nil {
		return err
	}
	c.abuse.goneBytes += uint64(f.Cost)
	c.mu.Lock()
	bound := c.table.endedEarly * c.maxInTransit()
	c.mu.Unlock()
	if c.abuse.goneBytes > bound {
		return violation(frame.CodeStreamState, "too much data for streams that have ended")
	}
	c.returnCredit(f.Cost)
	return nil
}

// strange checks a frame for a stream that is not there: it was once, and the
// peer can't have known of its end yet.
func (c *Conn) checkGone(f *frame.Frame) error {
	id := f.Stream
	c.mu.Lock()
	defer c.mu.Unlock()
	local := id&1 == c.localParity()
	switch {
	case id == 0:
		return violation(frame.CodeProtocol, "stream 0 can't have data")
	case (local && id >= c.nextLocal || !local && id > c.lastPeer) && f.Kind == frame.Reset:
		return violation(frame.CodeProtocol, "reset of stream %d, which was never opened", id)
	case local && id >= c.nextLocal, !local && id > c.lastPeer:
		return violation(frame.CodeStreamState, "frame for stream %d, which was never opened", id)
	case (f.Kind == frame.Data || f.Kind == frame.EOS) && c.table.peerEnded(id):
		return violation(frame.CodeStreamState, "frame for stream %d after its end", id)
	}
	return nil
}

func (c *Conn) localParity() uint64 {
	if c.cfg.Client {
		return 1
	}
	return 0
}

// control takes any frame but data.
func (c *Conn) control(f *frame.Frame) error {
	switch f.Kind {
	case frame.Skip:
		return nil
	case frame.Reply:
		if f.Reason == "" { // a request that is refused is work, and no frame in vain
			if err := c.countUseless(); err != nil {
				return err
			}
		}
		return c.out.reply(c, f)
	case frame.Hello:
		return violation(frame.CodeProtocol, "a second hello")
	case frame.NewSettings:
		return c.newSettings(f)
	case frame.Read, frame.Ping, frame.Pong, frame.GoAway:
		if f.Stream != 0 {
			return violation(frame.CodeProtocol, "frame of the connection on stream %d", f.Stream)
		}
		return c.connFrame(f)
	case frame.Credit:
		if err := c.abuse.credit(c.sentCost.Load()); err != nil {
			return err
		}
		if f.Stream == 0 {
			return c.connCredit(f.Value)
		}
	case frame.Open:
		return c.open(f)
	}
	return c.streamFrame(f)
}

func (c *Conn) streamFrame(f *frame.Frame) error {
	p := c.find(f.Stream)
	if p == nil {
		if f.Stream == 0 || f.Kind == frame.Accept || f.Kind == frame.Reject {
			return c.answerForGone(f)
		}
		if err := c.countUseless(); err != nil {
			return err
		}
		return c.checkGone(f)
	}
	switch f.Kind {
	case frame.Accept, frame.Reject:
		if !p.local {
			return violation(frame.CodeProtocol, "an answer to our own answer on stream %d", f.Stream)
		}
	case frame.Reset:
		p.peerEnded.Store(true)
		if p.local { // as many as we open, and no more
			break
		}
		if err := c.abuse.reset(c.in.now); err != nil {
			return err
		}
	case frame.EOS:
		p.peerEnded.Store(true)
	}
	return c.countFault(p.s.Control(f))
}

// lateAnswer drops the answer to a stream that we have given up meanwhile.
func (c *Conn) answerForGone(f *frame.Frame) error {
	if f.Stream == 0 || f.Stream&1 != c.localParity() {
		return violation(frame.CodeProtocol, "an answer for stream %d", f.Stream)
	}
	if err := c.countUseless(); err != nil {
		return err
	}
	return c.checkGone(f)
}

// useless counts a frame that changes nothing. An honest peer sends a few when a
// stream ends, before it hears of it.
func (c *Conn) countUseless() error {
	c.mu.Lock()
	streams := (c.nextLocal + c.lastPeer) / 2
	c.mu.Unlock()
	return c.abuse.useless(streams)
}

func (c *Conn) connCredit(total uint64) error {
	old := c.granted.Load()
	if total > c.sentCost.Load()+1<<31 {
		return violation(frame.CodeFlowControl, "connection credit %d is too far ahead", total)
	}
	if total > old {
		c.granted.Store(total)
		c.out.unstall(c)
		c.out.wakeRoom(c)
	}
	return nil
}

func (c *Conn) connFrame(f *frame.Frame) error {
	switch f.Kind {
	case frame.Read:
		if f.Value > c.out.wrote.Load() {
			return violation(frame.CodeProtocol, "more read than was written")
		}
		if err := c.abuse.read(c.out.wrote.Load()); err != nil {
			return err
		}
		if f.Value > c.peerRead.Load() {
			c.peerRead.Store(f.Value)
			c.keeper.read(c, f.Value)
			c.out.unstall(c)
		}
	case frame.Ping:
		if err := c.abuse.ping(c.in.now, c.lim.KeepaliveMinimum, c.in.messages, c.sentCost.Load()); err != nil {
			return err
		}
		return c.out.pong(c, f.Value)
	case frame.Pong:
		if !c.keeper.pong(c, f.Value) {
			return c.countUseless()
		}
	case frame.GoAway:
		return c.receiveGoAway(f)
	}
	return nil
}

// open checks the peer's wish for a stream and passes it on.
func (c *Conn) open(f *frame.Frame) error {
	id, n := f.Stream, uint64(len(f.Grants))
	if id == 0 || id&1 == c.localParity() || id+2*(n-1) > c.maxStream {
		return violation(frame.CodeProtocol, "open of %d streams from number %d", n, id)
	}
	c.mu.Lock()
	if id <= c.lastPeer {
		c.mu.Unlock()
		return violation(frame.CodeProtocol, "open of stream %d after %d", id, c.lastPeer)
	}
	c.lastPeer = id + 2*(n-1)
	c.abuse.opened(n)
	refusal := c.refuse(f, int(n))
	c.mu.Unlock()
	if refusal == nil {
		refusal = c.checkOpen(f)
	}
	if refusal == nil {
		refusal = c.cfg.Handler.Open(c, f)
	}
	if refusal == nil {
		c.loseIfEnded(id, n)
		return nil
	}
	c.mu.Lock()
	c.table.endedEarly += n
	c.mu.Unlock()
	if err := c.abuse.refused(c.in.now, c.lim.MaxStreams); err != nil {
		return err
	}
	return c.out.reply(c, &frame.Frame{
		Kind: frame.Reject, Stream: id, Code: refusal.Code,
		Reason: clip(refusal.Reason), NotProcessed: refusal.NotProcessed,
	})
}

// missedEnd tells the streams that were just taken of the connection's end, if it
// came meanwhile and may not have found them.
func (c *Conn) loseIfEnded(id, n uint64) {
	c.mu.Lock()
	cause := c.cause
	c.mu.Unlock()
	if cause == nil {
		return
	}
	for i := range n {
		if p := c.find(id + 2*i); p != nil {
			p.s.Lost(cause, false)
		}
	}
}

// refuse tells why no more streams are taken, or nil.
func (c *Conn) refuse(f *frame.Frame, n int) *Refusal {
	switch {
	case c.ended:
		return &Refusal{frame.CodeGoingAway, "connection is closing", true}
	case c.goAway.final && f.Stream > c.goAway.lastStream:
		return &Refusal{frame.CodeGoingAway, "server is shutting down", true}
	case c.peer+n > c.maxStreams():
		return &Refusal{frame.CodeRefused, fmt.Sprintf("%d streams are open", c.peer), true}
	case c.openBytes >= c.lim.AssemblyBudget:
		return &Refusal{frame.CodeResourceExhausted, "no memory left for what comes with opens", true}
	}
	return nil
}

// mostStreams is how many streams of the peer's there may be. Where nobody says
// that an application was handed a stream's end, the peer can count a stream as
// over that is not quite over here.
func (c *Conn) maxStreams() int {
	if !c.caps.Ended {
		return 2 * c.lim.MaxStreams
	}
	return c.lim.MaxStreams
}

func (c *Conn) checkOpen(f *frame.Frame) *Refusal {
	if r := c.CheckSize(f); r != nil {
		return r
	}
	if !f.Metadata.Valid() {
		return &Refusal{frame.CodeProtocol, "metadata with an illegal key", true}
	}
	return nil
}

// goneAway takes the peer's goodbye.
func (c *Conn) receiveGoAway(f *frame.Frame) error {
	if err := c.abuse.goAway(); err != nil {
		return err
	}
	c.mu.Lock()
	if f.Value != c.maxStream && f.Value >= c.nextLocal {
		c.mu.Unlock()
		return violation(frame.CodeProtocol, "a goodbye that serves stream %d, which was never opened", f.Value)
	}
	if c.goAway.received && f.Value > c.goAway.peerLastStream {
		c.mu.Unlock()
		return violation(frame.CodeProtocol, "a goodbye that takes the last one back")
	}
	c.goAway.received, c.goAway.peerLastStream = true, f.Value
	if f.Code != frame.CodeOK { // the end tells every stream why
		c.mu.Unlock()
		return &goAwayError{f.Code, f.Reason}
	}
	var unserved []*Port
	for _, p := range c.table.all() {
		if p.local && p.id.Load() > f.Value {
			unserved = append(unserved, p)
		}
	}
	idle := c.local+c.peer == 0
	c.mu.Unlock()
	for _, p := range append(unserved, c.out.takeUnnumbered()...) {
		p.s.Lost(c.errGoingAway(), true)
	}
	c.cfg.Handler.GoAway(c)
	if idle && f.Value < c.maxStream {
		return &goAwayError{f.Code, f.Reason}
	}
	return nil
}
