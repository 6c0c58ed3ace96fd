package actor

import "github.com/sluicerpc/sluice/frame"

// What is different where the receiver grants no credit (frame.Pacing). The sender's
// window is its own, and the receiver limits what it keeps unread.

// freed returns a part of a burst to the sender's window: used bytes of credit, payload
// of them in messages. A receiver that reports counts the payload alone, so the overhead
// is free at once. Where the receiver says nothing, all is free once it is written.
func (s *Stream) freed(used, payload int) {
	switch s.cfg.Caps.Pacing {
	case frame.Reported:
		s.cred.granted += int64(used - payload)
	case frame.Unpaced:
		s.cred.granted += int64(used)
	}
}

// reported takes the receiver's report of the payload bytes that it has taken in all. It
// reports false if that is not news.
func (s *Stream) reported(total uint64) bool {
	oc := s.makeOutcome()
	total = min(total, s.cred.sent)
	if total <= oc.reported {
		return false
	}
	s.cred.granted += int64(total - oc.reported)
	oc.reported = total
	return true
}

// reportEvery is how many payload bytes we take before we report them while more wait. If
// none wait we report at once: the sender's window may be small.
const reportEvery = 64 << 10

// countPayload counts n payload bytes that are no longer here, and reports them if it is
// time to.
func (s *Stream) countPayload(n int) {
	if s.cfg.Caps.Pacing != frame.Reported || s.st.done {
		return
	}
	w := &s.win
	w.payload += uint64(n)
	unreported := w.payload - w.granted
	if unreported == 0 || unreported < reportEvery && s.in.Len() > 0 {
		return
	}
	w.granted = w.payload
	s.requestControl(controlCredit)
}

// overCap reports whether a sender that has a window of its own has more unread here than
// we keep.
func (s *Stream) overCap() bool {
	return s.cfg.Caps.Pacing == frame.Reported && s.win.recvd-s.win.taken > uint64(s.cfg.Window)
}
