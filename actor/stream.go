package actor

import (
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// A Link is what a stream needs of its connection. None of its methods waits,
// and none is called under the stream's lock except the ones that say so.
type Link interface {
	// ID is the stream's number on the wire, 0 while it has none. Any time.
	ID() uint64
	// Forsake has the stream get no number, unless it has one: then it is false. Any
	// time.
	Forsake() bool
	// Ready asks for a call of Fill: urgently for a control frame, else in turn.
	Ready(urgent bool)
	// ReadySoon is Ready(false), and leaves the writing to another goroutine.
	ReadySoon()
	// Queued counts bytes that could be written now, and (negative) that no longer can.
	Queued(delta int)
	// Room tells whether the connection takes more data now. Any time.
	Room() bool
	// AwaitRoom asks for a call of RoomFree when there may be room again.
	AwaitRoom()
	// AwaitFull asks for a call of RoomGone when there is no room any more.
	AwaitFull()
	// Taken returns credit to the connection.
	Taken(cost int)
	// Assemble reserves (or, negative, returns) memory for a message that comes
	// in fragments; false if the budget is used up. Any time.
	Assemble(n int) bool
	// Keep counts bytes that came beside messages, and that the stream keeps (or,
	// negative, no longer does) until Retire. Any time.
	Keep(n int)
	// Grow returns the window to use instead of window, which its reader wants
	// to be larger, at most most. Any time.
	Grow(window, most int) int
	// Shrink gives back what Grow and the start gave beyond to bytes of window.
	Shrink(from, to int)
	// Retire takes the stream out of the connection.
	Retire()
	// Fed says that somebody has begun to feed a channel, or has ended, after Retire:
	// Feeding tells which.
	Fed()
	// ParentErr is why the context that bounds the stream's life has ended, nil while it
	// has not. Any time.
	ParentErr() error
	// Timers is the queue for the stream's timers. Any time.
	Timers() *timers.Queue
}

// Config is what a stream is made with.
type Config struct {
	Method      string
	Caps        frame.Caps
	InBuffer    int           // messages that In holds; 0: none
	MaxBatch    int           // messages in a Batch
	IdleTimeout time.Duration // 0: never idle
	NoReceive   bool          // the peer may send nothing
	NoSend      bool          // the peer receives nothing

	MaxReceive int // longest message taken, bytes
	MaxSend    int // longest message that the peer takes, bytes

	Window     int    // bytes that the peer may send unread, at first
	MaxWindow  int    // what the window may grow to
	SendLimit  int    // our own unread bytes at the peer, 0: as the peer grants
	SendCredit uint64 // granted by the peer so far
}

// want is what control frames the stream has to write.
type want uint8

const (
	wantOpen   want = 1 << iota // Open, Accept or Reject: the frame is in first
	wantCredit                  // the grant has grown
	wantStop                    // we read no more
	wantEnded                   // the application was handed the end
	wantReset
	wantEnd // our end, that nothing is before
)

// A Stream is one stream. Its methods may be called from any goroutine, except
// where they say otherwise.
type Stream struct {
	mu   sync.Mutex
	link Link
	cfg  *Config
	st   state
	want want

	inData    bool // in the connection's turn for data
	inControl bool // in its turn for control frames
	pumping   bool // the goroutine that feeds In or Batches runs
	answered  bool // accepted or refused
	deaf      bool // the peer receives nothing
	lead      bool // the first message that is not written belongs to our open or answer
	filling   bool // a burst of ours is being encoded
	dropCur   bool // and its message is not wanted any more
	evicted   bool // what is unread is not kept

	uncounted int32 // eligible bytes that the connection does not know of

	post post // to be done after unlocking

	in       pool.Queue // the mailbox: arrived and not taken
	win      window
	asm      *assembly // the message that is arriving in fragments
	messages uint64    // taken

	out      pool.Queue   // accepted to be sent
	cur      pool.Message // of which some fragments were written
	curOff   int32        // and how much of its cost they took
	large    int32        // messages in out that are longer than a fragment
	cred     credit
	accepted uint64 // messages

	f     *faces
	ends  *ends
	first *frame.Frame // Open, Accept or Reject, until written
}

// ends is what is known about how the stream went, made when there is something.
type ends struct {
	reply    pool.Message
	header   frame.Metadata
	failure  error        // why the stream failed
	recvErr  error        // how the peer's half ended, if not in order
	status   *frame.Frame // of our end; nil: in order
	trailer  frame.Metadata
	stop     frame.Code
	stopped  bool // by the peer
	dropped  int  // messages that the peer did not read
	resetErr *StreamError
	faceErr  error

	first     first  // what the first message is, until it has come
	onRequest func() // see OnRequest

	unanswered bool   // given up before the peer's answer
	reported   uint64 // payload bytes that the peer says it has taken
}

// Init makes s a stream on link. It must be called once, before anything else.
func (s *Stream) Init(link Link, cfg *Config) {
	s.link, s.cfg, s.deaf = link, cfg, cfg.NoSend
	s.st.untold = !cfg.Caps.Ended
	s.win.init(cfg)
	s.cred.init(cfg)
	if cfg.IdleTimeout > 0 {
		s.face().idle = newIdler(s, cfg.IdleTimeout)
	}
}

func (s *Stream) face() *faces {
	if s.f == nil {
		s.f = &faces{}
	}
	return s.f
}

func (s *Stream) more() *ends {
	if s.ends == nil {
		s.ends = &ends{}
	}
	return s.ends
}

// ask has Fill called for a control frame.
func (s *Stream) ask(w want) {
	if s.st.retired {
		return
	}
	s.want |= w
	if !s.inControl {
		s.inControl, s.later().urgent = true, true
	}
}

// turn has Fill called for data, if there is some that could be written. An end that
// no data is before takes no credit, and must not wait for others to get some.
func (s *Stream) turn() {
	switch {
	case s.inData && s.st.send != sendEnding, s.st.retired, !s.hasData():
	case s.cfg.granted() && s.endDue():
		s.ask(wantEnd)
	case !s.inData:
		s.inData, s.later().ready = true, true
	}
}

// hasData tells whether there is something that Fill could write. A message's
// first piece takes its overhead of credit, and a byte unless it has none.
func (s *Stream) hasData() bool {
	if s.unanswered() && !s.lead {
		return false
	}
	if s.endDue() {
		return true
	}
	return s.cred.eligible >= s.firstCost()
}

// firstCost is the least credit that the next piece takes.
func (s *Stream) firstCost() int {
	switch {
	case !s.cur.IsZero():
		return 1
	case s.out.Len() == 0:
		return math.MaxInt
	}
	return min(pool.Cost(s.out.Head()), s.cfg.Caps.LeastPiece)
}

// endDue tells whether our end is the next thing to write.
func (s *Stream) endDue() bool {
	return s.st.send == sendEnding && s.out.Len() == 0 && s.cur.IsZero()
}

// apply does what a step of the state machine asks for. For steps that it takes
// itself, it goes on until nothing is asked.
func (s *Stream) apply(fx effect) {
	if fx&fxDropOut != 0 {
		s.dropOut()
	}
	if fx&fxSendOver != 0 {
		s.sendOver()
	}
	if fx&fxDropIn != 0 {
		s.dropIn()
	}
	if fx&fxWriteStop != 0 {
		s.ask(wantStop)
	}
	if fx&fxWriteReset != 0 {
		s.ask(wantReset)
	}
	if fx&fxWriteEnd != 0 {
		s.turn()
	}
	if fx&fxRecvOver != 0 {
		s.recvOver()
	}
	if s.st.handed && !s.st.toldHanded && s.want&wantEnded == 0 && !s.st.done && !s.pumping {
		s.ask(wantEnded) // the goroutine that feeds a channel accounts for what it handed over first
	}
	if fx&fxDone != 0 {
		s.over()
	}
	if fx&fxRetire != 0 {
		s.retire()
	}
}

func (s *Stream) retire() {
	s.later().retire = true
	s.shrink(0)
	s.dropAssembly()
	s.settleUp()
	s.post.queued += s.uncounted
	s.uncounted = 0
}

// shrink makes the window n bytes.
func (s *Stream) shrink(n int) {
	p := s.later()
	if p.from == p.to {
		p.from = int32(s.win.size)
	}
	s.win.size, p.to = n, int32(n)
}

// settleUp returns to the connection what messages here have of its credit and
// of its budget: they may be taken late, or never.
func (s *Stream) settleUp() {
	w := &s.win
	if w.settled {
		return
	}
	unread := w.recvd - w.taken
	s.later().taken += int32(unread) + w.gathered
	w.taken, w.gathered, w.settled = w.recvd, int32(unread), true
	if a := s.asm; a != nil {
		s.link.Assemble(-a.reserve)
		a.reserve = 0
		if !a.paid.IsZero() { // from now on it is unread like any other
			w.gathered += int32(a.owed)
			a.paid = pool.Message{}
		}
	}
}

// over tells everybody that nothing will change any more.
func (s *Stream) over() {
	f := s.f
	if f == nil {
		return
	}
	if f.done != nil {
		close(f.done)
	}
	if f.ctxDone != nil && !f.ctxOver {
		close(f.ctxDone)
	}
	f.ctxOver = true
	if f.idle != nil {
		f.idle.stop()
	}
}

// dropOut forgets what was accepted and not written.
func (s *Stream) dropOut() {
	s.out.Release()
	s.large, s.lead = 0, false
	if s.filling {
		s.dropCur = true
	} else {
		s.forgetCur()
	}
	s.cred.drop()
	s.requeue()
}

// forgetCur leaves a message of which fragments may be on their way out to the
// garbage collector.
func (s *Stream) forgetCur() {
	s.cur.Forget()
	s.cur, s.curOff = pool.Message{}, 0
}

// requeue tells the connection how much of ours it could write now.
func (s *Stream) requeue() {
	s.recount()
	s.turn()
}

// recount is requeue without asking for a turn. What has to wait for the answer
// takes no room of other streams'.
func (s *Stream) recount() {
	switch {
	case s.unanswered():
		s.count(s.cred.set(s.leading()))
	case s.cfg.granted():
		s.count(s.cred.update(false))
	default:
		s.count(s.cred.update(true))
	}
}

// countEvery is how many bytes a stream may have queued that its connection has
// not counted in: one count serves many small messages.
const countEvery = 4 << 10

// count tells the connection, sooner or later, of d more bytes to write.
func (s *Stream) count(d int) {
	if s.uncounted += int32(d); s.uncounted < 0 || s.uncounted >= countEvery {
		s.later().queued += s.uncounted
		s.uncounted = 0
	}
}

// fail makes the stream's error for a code.
func (s *Stream) fail(c frame.Code, reason string, remote bool) *StreamError {
	return &StreamError{Stream: s.link.ID(), Method: s.cfg.Method, Code: c, Reason: reason, Remote: remote}
}

// sendErr is why nothing can be sent, or nil.
func (s *Stream) sendErr() error {
	e := s.ends
	switch {
	case s.st.canSend() && !s.deaf && (s.f == nil || !s.f.endAsked):
		return nil
	case e != nil && e.failure != nil:
		return e.failure
	case s.deaf:
		return ErrNotReadable
	case e != nil && e.stopped:
		return ErrStopped
	}
	return ErrSendClosed
}

// endErr is what a reader is told after the last message.
func (s *Stream) endErr() error {
	e := s.ends
	switch {
	case s.st.recv == recvStopped || s.st.recv == recvStopEnd:
		return ErrClosed
	case e != nil && e.recvErr != nil:
		return e.recvErr
	case s.st.recv == recvEnded:
		return io.EOF
	case e != nil && e.failure != nil:
		return e.failure
	}
	return io.EOF
}

// Err returns why the stream failed, or nil while it has not. A stream that
// both sides ended in order keeps nil.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errLocked()
}

func (s *Stream) errLocked() error {
	e := s.ends
	if e == nil {
		return nil
	}
	if e.recvErr != nil {
		return e.recvErr
	}
	if e.failure == nil {
		return e.faceErr
	}
	return e.failure
}

// Discarded is the number of messages that this side sent and the peer's
// application did not read, known when the stream has ended in order.
func (s *Stream) Discarded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		return 0
	}
	return s.ends.dropped
}

// CloseSend ends the sending half after everything accepted before it.
func (s *Stream) CloseSend(code frame.Code, reason string, trailer frame.Metadata) error {
	s.mu.Lock()
	defer s.unlock()
	if !s.cfg.Caps.HalfClose && s.st.recv == recvOpen && !s.cfg.NoReceive {
		return ErrNotSupported
	}
	s.closeSend(code, reason, trailer)
	return nil
}

func (s *Stream) closeSend(code frame.Code, reason string, trailer frame.Metadata) {
	if s.st.send != sendOpen || s.f != nil && s.f.endAsked {
		return
	}
	// The end of the parent is on its way, in a goroutine of its own: an end in order
	// must not overtake it, or the peer would take what it has for all there is.
	if cause := s.link.ParentErr(); cause != nil {
		s.abort(s.orphaned(cause))
		return
	}
	if code != frame.CodeOK || reason != "" || len(trailer) > 0 {
		s.more().status = &frame.Frame{Code: code, Reason: reason, Metadata: trailer}
	}
	if s.f != nil && s.f.outRuns {
		// The goroutine that takes from Out may have a message in hand, which
		// comes before the end: it ends the half itself.
		s.f.endAsked = true
		s.sendOver()
		return
	}
	s.apply(s.st.closeSend())
}

// Finish ends both halves in order, ours with a status.
func (s *Stream) Finish(code frame.Code, reason string, trailer frame.Metadata) {
	s.mu.Lock()
	defer s.unlock()
	s.closeSend(code, reason, trailer)
	s.closeReceive()
}

// closeReceive ends the receiving half, also of a stream that has failed: nobody will
// read what came before that.
func (s *Stream) closeReceive() {
	s.apply(s.st.closeReceive())
	s.renewUnread()
	if s.st.recv == recvDead {
		s.dropIn()
		s.evicted = true // what the goroutine that feeds a channel has in hand goes as well
	}
	s.stopPump()
}

// Granted is what the peer may send in all.
func (s *Stream) Granted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.win.granted
}

// CloseReceive ends the receiving half: what waits unread is dropped, and the
// peer is told to send no more.
func (s *Stream) CloseReceive(code frame.Code) {
	s.mu.Lock()
	defer s.unlock()
	if s.st.recv == recvOpen {
		s.more().stop = code
	}
	s.closeReceive()
}

// Abort ends both halves now and tells the peer why. cause, if not nil, is what
// the stream's error leads to.
func (s *Stream) Abort(code frame.Code, reason string, cause error) {
	s.mu.Lock()
	defer s.unlock()
	e := s.fail(code, reason, false)
	e.Cause = NoEnd(cause)
	s.abort(e)
}

func (s *Stream) abort(e *StreamError) {
	if s.st.done || s.st.send == sendDead {
		return
	}
	m := s.more()
	m.failure, m.resetErr = e, e
	m.unanswered = !s.answered
	known := !s.link.Forsake()
	if !known {
		s.first, s.want = nil, 0
	}
	s.answer()
	s.stopPump()
	s.apply(s.st.abort(known))
}

// Lost ends both halves because the connection did; e says how.
func (s *Stream) Lost(e *StreamError) {
	s.mu.Lock()
	defer s.unlock()
	e.Stream, e.Method = s.link.ID(), s.cfg.Method
	s.lose(e)
}

func (s *Stream) lose(e *StreamError) {
	if !s.st.done {
		if !s.closedInOrder(e) {
			s.more().failure = e
		}
		s.answer()
	}
	s.apply(s.st.lost())
}

// closedInOrder tells whether the peer has closed a connection on which both
// halves had ended: where no side says that its application was handed the end,
// there is nothing more to come, and the peer may be sooner than our application.
func (s *Stream) closedInOrder(e *StreamError) bool {
	ended := s.st.recv == recvEnded || s.st.recv == recvStopEnd
	return s.st.untold && s.st.send == sendEnded && ended && errors.Is(e.Cause, io.ErrUnexpectedEOF)
}

// answer wakes who waits to hear whether the stream was accepted.
func (s *Stream) answer() {
	s.answered = true
	if s.f != nil && s.f.answered != nil {
		close(s.f.answered)
		s.f.answered = nil
		if *s.f == (faces{}) { // it was made for this only
			s.f = nil
		}
	}
}
