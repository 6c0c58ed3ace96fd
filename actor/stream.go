package actor

import (
	"io"
	"sync"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A Stream is one stream. Its methods may be called from any goroutine, except
// where they say otherwise.
type Stream struct {
	mu      sync.Mutex
	link    Link
	cfg     *Config
	st      state
	control controlBits // control frames to write

	dataRequested    bool // a call of Fill for data
	controlRequested bool // a call of Fill for control frames
	pumping          bool // a goroutine feeds In or Batches
	answered         bool // accepted or refused
	peerNoReceive    bool // the peer receives no messages
	sendsHeld        bool // see HoldSends
	opensWith        bool // the next message to write belongs to our open or answer
	dropUnread       bool // keep nothing unread when the goroutine that feeds a channel ends
	contextOver      bool // the stream's context has ended
	filling          fillState
	requests         requests

	countAt   uint16 // what uncounted stays below
	uncounted int32  // eligible bytes that the connection does not know of
	told      int32  // see tellHeld

	post post // for unlock

	in            pool.Queue // the mailbox: messages that arrived and were not taken
	win           window
	asm           *assembly // nil while no message arrives in fragments
	messagesTaken uint64    // by the application
	bytesReceived uint64
	mailbox       mailbox      // also what the goroutine that feeds a channel has in hand
	heardAt       timers.Stamp // when the last message came, or a piece
	unreadSince   timers.Stamp // see noteUnread
	unreadTaken   uint32       // low half of messagesTaken at that time
	starvedSince  timers.Stamp // see noteStarved; here, where it fills a word

	out         pool.Queue // messages accepted and not written
	partial     pool.Kept  // a message of which fragments were written
	partialSent int32      // their cost
	large       int32      // messages in out that are longer than a fragment
	cred        credit
	sent        Volume

	ch         *channels
	outcome    *outcome
	firstFrame *frame.Frame // Open, Accept or Reject, until written
}

// controlBits are the control frames that a stream has to write.
type controlBits uint8

const (
	controlOpen   controlBits = 1 << iota // firstFrame
	controlCredit                         // the grant has grown
	controlStop                           // we read no more
	controlEnded                          // the application has seen the peer's end
	controlReset
	controlEnd // our end, with no data before it
)

// fillState tells whether a fragment of partial is being encoded.
type fillState uint8

const (
	notFilling fillState = iota
	filling
	fillingDropped // partial is dropped after that
)

// requests tells how many messages the application takes of the stream.
type requests uint8

const (
	anyNumber   requests = iota
	oneRequest           // see ReceiveOnly
	requestHere          // it was taken: no further message may come
)

// An outcome is how the stream went so far, and what came with its open and its end. It
// is made when there is something to say.
type outcome struct {
	reply      pool.Message
	header     metadata.MD
	failure    error        // why the stream failed
	recvErr    error        // how the peer's half ended, if not in order
	status     *frame.Frame // of our end; nil: in order
	trailer    metadata.MD
	stop       status.Code
	refused    status.Code // what our Reject has said
	dropped    int         // messages that the peer's application did not take
	resetErr   *status.StreamError
	channelErr error // misuse of In, Batches or Out

	stopped           bool // the peer reads no more
	finished          bool // with stopped: our program has ended its half too
	endedHere         bool // the peer's half: this side's session has ended it, and the peer may not know
	abortedUnanswered bool // aborted before the peer's answer
	notReady          bool // the peer has answered, and data may not follow yet
	closedBehindEnd   bool // failure is that the peer has closed the stream's connection behind our end
	hasRequest        bool
	firstMessage      firstMessage // what the first message is, until it has arrived
	onRequest         func()       // see OnRequest
	request           pool.Message // that came with the open, if hasRequest, until TakeRequest

	inWork     taken  // see Config.CountLate
	reported   uint64 // payload bytes that the peer has reported
	unreported int64  // what the connection knows of unreported
	droppedIn  uint64 // messages that arrived and that the application will not take
	droppedOut uint64 // messages that were accepted and will not be written
}

// firstMessage is what the first message of a stream is.
type firstMessage uint8

const (
	firstData    firstMessage = iota
	firstRequest              // the request, if it did not travel with the open
	firstReply                // the reply, too long to travel with the answer
)

// Init makes s a stream on link. It is called once, before anything else.
func (s *Stream) Init(link Link, cfg *Config) {
	s.link, s.cfg, s.peerNoReceive = link, cfg, cfg.NoSend
	s.st.noEnded = !cfg.Caps.Ended
	s.win.begin(cfg, cfg.Window)
	s.cred.init(cfg)
	s.countAt = leastUncounted
	if cfg.IdleTimeout > 0 {
		s.makeChannels().idle = newIdler(&s.mu, link, cfg.IdleTimeout)
	}
}

// BeginWith sets the first window, and what the peer has granted so far, of a stream that nobody
// has yet. They differ between streams that share a Config.
func (s *Stream) BeginWith(window int, credit uint64) {
	if !s.cfg.granted() {
		return
	}
	s.win.begin(s.cfg, window)
	s.cred.granted = int64(credit)
	s.cred.relimit(s.cfg)
}

// later returns the post, to add to it.
func (s *Stream) later() *post {
	s.post.any = true
	return &s.post
}

// unlock frees the lock and does what the step under it has left to do.
func (s *Stream) unlock() {
	if !s.post.any {
		s.mu.Unlock()
		return
	}
	s.post.unlock(&s.mu, s.link)
}

func (s *Stream) makeChannels() *channels {
	if s.ch == nil {
		s.ch = &channels{}
	}
	return s.ch
}

func (s *Stream) makeOutcome() *outcome {
	if s.outcome == nil {
		s.outcome = &outcome{}
	}
	return s.outcome
}

// requestControl asks for a call of Fill, to write control frames.
func (s *Stream) requestControl(c controlBits) {
	if s.st.retired {
		return
	}
	s.control |= c
	if !s.controlRequested {
		s.controlRequested, s.later().urgent = true, true
	}
}

// awaitsAnswer reports whether data must wait for the answer to our open, or until the peer
// is ready for it.
func (s *Stream) awaitsAnswer() bool {
	return !s.answered && !s.cfg.Caps.Early || s.outcome != nil && s.outcome.notReady
}

// fail returns a new error of this stream.
func (s *Stream) fail(c status.Code, reason string, remote bool) *status.StreamError {
	return &status.StreamError{Stream: s.link.ID(), Method: s.cfg.Method, Code: c, Reason: reason, Remote: remote}
}

// sends reports whether messages are accepted. It does not look at the credit.
func (s *Stream) sends() bool {
	return s.st.canSend() && !s.peerNoReceive && (s.ch == nil || !s.ch.endAsked)
}

// sendErr is why sends reports false, or nil.
func (s *Stream) sendErr() error {
	oc := s.outcome
	switch {
	case s.sends():
		return nil
	case oc != nil && oc.failure != nil:
		return oc.failure
	case s.peerNoReceive:
		return ErrNotReadable
	case oc != nil && oc.stopped:
		return ErrStopped
	}
	return ErrSendClosed
}

// endErr is what Receive returns after the last message.
func (s *Stream) endErr() error {
	oc := s.outcome
	switch {
	case s.st.recv == recvStopped || s.st.recv == recvStopEnd:
		return ErrClosed
	case oc != nil && oc.recvErr != nil:
		return oc.recvErr
	case s.st.recv == recvEnded:
		return io.EOF
	case oc != nil && oc.failure != nil:
		return oc.failure
	}
	return ErrClosed // this side reads no more, and the connection has ended in order behind that
}

// Err returns why the stream failed, or nil if it has not. It stays nil if both sides
// end the stream in order.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errLocked()
}

func (s *Stream) errLocked() error {
	oc := s.outcome
	if oc == nil {
		return nil
	}
	if oc.recvErr != nil {
		return oc.recvErr
	}
	if oc.failure == nil {
		return oc.channelErr
	}
	return oc.failure
}

// Discarded is the number of messages that this side sent and the peer's application did
// not take. It is known once the stream has ended in order.
func (s *Stream) Discarded() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcome == nil {
		return 0
	}
	return s.outcome.dropped
}

// Header returns the metadata of the peer's answer to our open, nil before that.
func (s *Stream) Header() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcome == nil {
		return nil
	}
	return s.outcome.header
}

// Trailer returns the metadata of the peer's end.
func (s *Stream) Trailer() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outcome == nil {
		return nil
	}
	return s.outcome.trailer
}

// status is what our end says, nil if that is code OK alone.
func (s *Stream) status() *frame.Frame {
	if s.outcome == nil {
		return nil
	}
	return s.outcome.status
}
