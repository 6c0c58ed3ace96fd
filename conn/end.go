package conn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// ending is the end of a connection over time: its last frame, a GOAWAY, is written,
// the peer closes, or the timer does.
type ending struct {
	lingers       atomic.Bool  // the timer is set to lingerFor
	lingerFor     atomic.Int64 // nanoseconds
	goAwayWritten atomic.Bool
	extensions    int // times that lingerFor was extended; owned by the timer
	writeErr      atomic.Pointer[error]
	finished      atomic.Bool // finish was called: the timer has nothing left to do
}

var (
	errPanic = errors.New("panic")
	// errStalled is an end by the peer's failure to read.
	errStalled = errors.New("the peer does not read")
)

// Fail ends the connection: the peer is sent code and err's text, and every stream is
// lost.
func (c *Conn) Fail(op string, code status.Code, err error) {
	c.end(&status.ConnError{Addr: c.cfg.Remote, Op: op, Code: code, Err: err}, true)
}

// Close ends the connection with status.OK. If streams are open they are lost, and the peer is
// told code and reason.
func (c *Conn) Close(code status.Code, reason string) {
	c.mu.Lock()
	c.goAway.code, c.goAway.reason = code, reason
	c.mu.Unlock()
	c.close()
}

// close ends the connection with status.OK, and no reason beside it.
func (c *Conn) close() { c.Fail("close", status.OK, net.ErrClosed) }

// EndSoon ends the connection after a moment, if it has not ended by then: a write that
// the peer does not read may keep it from its end for as long as the peer likes.
func (c *Conn) EndSoon() {
	if c.Err() == nil && !c.ending.lingers.Load() {
		c.linger(lingerTime)
	}
}

// panicked ends the connection after a panic of what its reader has called. The reader
// had corked the output, and writes what is left. The GOAWAY does not say what the
// panic was.
func (c *Conn) panicked(r any) {
	c.Fail("read", status.Internal, fmt.Errorf("%w: %w", errPanic, c.fault("frame.Session", r)))
	c.uncork(0)
}

// violated ends the connection for what the peer did.
func (c *Conn) violated(err error) {
	var pe *status.ProtocolError
	var v *frame.Violation
	switch {
	case errors.As(err, &pe):
		c.Fail("read", pe.Code, err)
	case errors.As(err, &v):
		c.Fail("read", v.Code, &status.ProtocolError{
			Proto: c.caps.Name, Code: v.Code, Offset: int64(c.in.bytesRead), Detail: v.Detail,
		})
	default:
		c.end(c.peerEnd(err), false)
	}
}

func (c *Conn) peerEnd(err error) *status.ConnError {
	e := &status.ConnError{Addr: c.cfg.Remote, Op: "read", Code: status.ConnectionLost, Err: err}
	var g *goAwayError
	if errors.As(err, &g) {
		e.Code, e.Remote = g.code, true
	}
	return e
}

// lost is called by the transport when the connection is gone. It replaces a socket's
// io.EOF, which would tell a stream's reader that all is well.
func (c *Conn) lost(op string, err error) {
	code := status.ConnectionLost
	switch {
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case op == "write" && errors.Is(err, os.ErrDeadlineExceeded):
		code, err = status.WriteStall, errStalled
	}
	e := &status.ConnError{Addr: c.cfg.Remote, Op: op, Code: code, Err: err}
	if c.events.awaitsFIN.Load() { // the session had nothing left to do: an end in order
		e = &status.ConnError{Addr: c.cfg.Remote, Op: "close", Code: status.OK, Err: net.ErrClosed}
	}
	c.end(e, false)
}

// writeFailed ends the connection after a moment. Until then the reader may find out
// why: the peer may have sent GOAWAY before it closed.
func (c *Conn) writeFailed(err error) {
	c.ending.writeErr.Store(&err)
	c.cfg.Timers.Set(&c.timer, c, time.Now().Add(lingerTime))
}

// end is the one place where a connection ends. Streams learn of it first, each after
// what was delivered to it. Then what is left is written, and a GOAWAY, if there is
// still a connection to write to.
func (c *Conn) end(e *status.ConnError, sendGoAway bool) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		if !sendGoAway {
			c.finish()
		}
		return
	}
	c.cause, c.endedAt = e, max(c.clock(), 1)
	c.goAway.lastStream = min(c.goAway.lastStream, c.lastPeer) // streams opened from now on are refused
	ports := c.table.all()
	served := c.maxStream
	if c.goAway.received {
		served = c.goAway.peerLastStream
	}
	c.mu.Unlock()
	unnumbered := c.out.takeUnnumbered()
	for _, p := range ports {
		p.s.Lost(e, p.local && p.id.Load() > served)
	}
	for _, p := range unnumbered {
		p.s.Lost(e, true)
	}
	if sendGoAway && c.tr != nil {
		c.sendGoAway(e, len(ports)+len(unnumbered) > 0)
		return
	}
	c.finish()
}

// sendGoAway has the connection's last frame written. lost says that streams were open: what
// Close was given is for their other ends.
func (c *Conn) sendGoAway(e *status.ConnError, lost bool) {
	code, reason := e.Code, ""
	switch {
	case e.Code == status.OK && lost:
		c.mu.Lock()
		code, reason = c.goAway.code, c.goAway.reason
		c.mu.Unlock()
	case e.Code == status.OK || e.Err == nil:
	case errors.Is(e.Err, errPanic):
		reason = errPanic.Error()
	default:
		reason = clip(e.Err.Error())
	}
	c.linger(lingerTime)
	c.mu.Lock()
	last := min(c.goAway.lastStream, c.lastPeer)
	c.mu.Unlock()
	c.requestControl(func(p *pendingControl) {
		p.goAway = &frame.Frame{Kind: frame.GoAway, Value: last, Code: code, Reason: reason}
		p.dying = true
	})
}

// lingerTime is how long the last frame may take to be written and answered.
const lingerTime = 100 * time.Millisecond

// linger has the timer end the connection after d.
func (c *Conn) linger(d time.Duration) {
	c.ending.lingerFor.Store(int64(d))
	c.ending.lingers.Store(true)
	c.cfg.Timers.Set(&c.timer, c, time.Now().Add(d))
}

// finish closes the transport and calls Handler.Closed, once.
func (c *Conn) finish() {
	if c.ending.finished.Swap(true) {
		return
	}
	c.mu.Lock()
	e := c.cause
	c.mu.Unlock()
	c.cfg.Timers.Stop(&c.timer)
	c.pause.wake()
	if c.tr != nil {
		c.tr.close()
	}
	c.cfg.Timers.Stop(&c.events.timer)
	c.endSession()
	c.cfg.Handler.Closed(c, e)
}
