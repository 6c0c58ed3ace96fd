package load

import (
	"errors"
	"io"
)

// echo keeps Outstanding echoes in flight, with one goroutine: what Send keeps back is
// flushed when Recv would wait.
func (l *lane) echo() error {
	outstanding := uint64(l.r.cfg.Outstanding)
	for range outstanding {
		if err := l.ping(0); err != nil {
			return err
		}
	}
	every := max(outstanding/4, 1)
	for !l.r.stop.Load() {
		if err := l.pong(); err != nil {
			return err
		}
		if err := l.ping(0); err != nil {
			return err
		}
		if l.got%every == 0 {
			l.publish()
		}
	}
	return nil
}

// ping sends the next message of an echo.
func (l *lane) ping(due int64) error {
	l.stampTimes(due)
	return l.s.Send(l.next())
}

func (l *lane) stampTimes(due int64) {
	if l.sampled(l.sent) {
		t := &l.times[l.sent&uint64(len(l.times)-1)]
		t.due.Store(due)
		t.sent.Store(l.r.now())
	}
}

// pong receives one message and checks it.
func (l *lane) pong() error {
	p, err := l.s.Recv()
	if err != nil {
		return err
	}
	l.receive(p)
	return nil
}

func (l *lane) receive(p []byte) {
	if l.r.faulty {
		l.r.stalled()
		l.noteRecovery()
	}
	l.got++
	l.bytes += uint64(len(p))
	if !l.check.Check(p) {
		return
	}
	if seq := l.seqOf(p); l.sampled(seq) {
		t := &l.times[seq&uint64(len(l.times)-1)]
		now := l.r.now()
		l.r.service(l, now-t.sent.Load())
		if due := t.due.Load(); l.q != nil {
			l.r.response(l, now-due)
		}
	}
}

// finishEcho ends our half and receives to the end of the other.
func (l *lane) finishEcho(err error) error {
	if err != nil {
		return err
	}
	if l.r.cfg.Payload != nil {
		if err := l.finishReplies(); err != nil {
			return err
		}
	}
	if err := l.s.CloseSend(); err != nil {
		return err
	}
	for {
		switch err := l.pong(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// roundTrip is one due echo, with nothing else in flight.
func (l *lane) roundTrip(due int64) error {
	if err := l.ping(due); err != nil {
		return err
	}
	return l.pong()
}
