package actor

// The state machine of a stream: two halves that end separately. It is pure:
// an event goes in, the state changes, and what has to be done about it comes
// out as effects. docs/wire.md draws it.

// sendState is how far the sending half is.
type sendState uint8

const (
	sendOpen   sendState = iota
	sendEnding           // an end is queued behind the data
	sendEnded            // the end was written
	sendDead             // reset, refused or lost
)

// recvState is how far the receiving half is.
type recvState uint8

const (
	recvOpen    recvState = iota
	recvEnded             // the peer's end is here; data before it may wait
	recvStopped           // we want no more: what comes is dropped
	recvStopEnd           // stopped, and the peer's end is here too
	recvDead              // reset, refused or lost
)

// effect is what a step asks the stream to do.
type effect uint16

const (
	fxSendOver   effect = 1 << iota // the sending half takes no more: wake, close Writable and SendDone
	fxRecvOver                      // no more will arrive: In closes when what is here was taken
	fxDropOut                       // unsent messages are dropped
	fxDropIn                        // unread messages are dropped
	fxWriteStop                     // tell the peer
	fxWriteReset                    // tell the peer
	fxWriteEnd                      // the end is to be written when the data is
	fxDone                          // both halves are over for good
	fxRetire                        // the connection forgets the stream
)

// state is the whole of it.
type state struct {
	send sendState
	recv recvState

	sawEnd     bool // our application was handed the peer's end
	sentEnded bool // the peer was told so
	gotEnded bool // the peer's application was handed ours
	noEnded     bool // the protocol does not say so
	done       bool
	retired    bool
	resetOut   bool // a reset is to be written before the stream is forgotten
}

// closeSend: the application has no more to say.
func (st *state) closeSend() effect {
	if st.send != sendOpen {
		return 0
	}
	st.send = sendEnding
	return fxSendOver | fxWriteEnd
}

// endWritten: our end is on the wire.
func (st *state) endWritten() effect {
	if st.send == sendEnding {
		st.send = sendEnded
	}
	return st.checkDone()
}

// peerStopped: the peer reads no more. What is queued is dropped and the end
// follows at once.
func (st *state) peerStopped() effect {
	switch st.send {
	case sendOpen, sendEnding:
		st.send = sendEnding
		return fxSendOver | fxDropOut | fxWriteEnd
	}
	return 0
}

// closeReceive: the application reads no more.
func (st *state) closeReceive() effect {
	switch st.recv {
	case recvOpen:
		st.recv = recvStopped
		return fxDropIn | fxRecvOver | fxWriteStop
	case recvEnded:
		if !st.sawEnd { // what was not taken makes it another end than the peer's
			st.recv, st.sawEnd = recvStopEnd, true
		}
		return fxDropIn | fxRecvOver | st.checkDone()
	}
	return 0
}

// peerEnded: the peer's end has arrived. ok is false if it had ended before.
func (st *state) peerEnded() (fx effect, ok bool) {
	switch st.recv {
	case recvOpen:
		st.recv = recvEnded
		return fxRecvOver, true
	case recvStopped:
		st.recv = recvStopEnd
		st.sawEnd = true
		return st.checkDone(), true
	case recvDead:
		return 0, true
	}
	return 0, false
}

// endHanded: the application was handed the peer's end.
func (st *state) endSeen() effect {
	if st.recv != recvEnded || st.sawEnd {
		return 0
	}
	st.sawEnd = true
	return st.checkDone()
}

// peerHandedEnd: the peer's application was handed ours.
func (st *state) peerSawEnd() effect {
	st.gotEnded = true
	return st.checkDone()
}

// abort: this side ends both halves now. What has arrived stays.
func (st *state) abort(opened bool) effect {
	if st.done || st.send == sendDead {
		return 0
	}
	fx := st.die()
	if !opened {
		st.retired = true
		return fx | fxRetire
	}
	st.resetOut = true
	return fx | fxWriteReset
}

// resetWritten: the peer is being told; the stream can be forgotten.
func (st *state) resetWritten() effect {
	if st.retired {
		return 0
	}
	st.resetOut, st.retired = false, true
	return fxRetire
}

// lost: the peer reset or refused the stream, or the connection is gone.
func (st *state) lost() effect {
	if st.done {
		return st.retire()
	}
	return st.die() | st.retire()
}

func (st *state) retire() effect {
	if st.retired {
		return 0
	}
	st.retired = true
	return fxRetire
}

func (st *state) die() effect {
	st.send, st.done = sendDead, true
	if st.recv != recvEnded { // what came before the peer's end is complete
		st.recv = recvDead
	}
	return fxSendOver | fxRecvOver | fxDropOut | fxDone
}

// settle finds out whether both halves have ended in order, on both sides.
func (st *state) checkDone() effect {
	recvOver := st.sawEnd && (st.recv == recvEnded || st.recv == recvStopEnd)
	if st.done || st.send != sendEnded || !recvOver || !st.gotEnded && !st.noEnded || !st.sentEnded {
		return 0
	}
	st.done = true
	return fxDone | st.retire()
}

// sendErr is what a sender is told.
func (st *state) canSend() bool { return st.send == sendOpen }

// wantsData tells whether arriving data is kept.
func (st *state) wantsData() bool { return st.recv == recvOpen }

// dataAllowed tells whether the peer may still send data.
func (st *state) dataAllowed() bool {
	return st.recv == recvOpen || st.recv == recvStopped || st.recv == recvDead
}
