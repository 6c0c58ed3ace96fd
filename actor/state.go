package actor

// The state machine of a stream: two halves that end separately. It is pure: each event
// is a method, which changes the state and returns what is to be done about it.
// docs/wire.md draws it.

// sendState is the state of the sending half.
type sendState uint8

const (
	sendOpen   sendState = iota
	sendEnding           // an end is queued behind the data
	sendEnded            // the end was written
	sendDead             // reset, refused or lost
)

// recvState is the state of the receiving half.
type recvState uint8

const (
	recvOpen    recvState = iota
	recvEnded             // the peer's end has arrived; data before it may be unread
	recvStopped           // we read no more: what arrives is dropped
	recvStopEnd           // stopped, and the peer's end has arrived too
	recvDead              // reset, refused or lost
)

// peerEnd is how far the peer's end has come.
type peerEnd uint8

const (
	endUnseen peerEnd = iota
	endHanded         // the application has not seen it, but all before it, and sends no more
	endSeen           // the application has seen it
)

// effect is what the stream has to do after an event.
type effect uint16

const (
	fxSendOver   effect = 1 << iota // no message is accepted any more: fail waiting senders, close Writable and SendDone
	fxRecvOver                      // no more will arrive: close In once what is here was taken
	fxDropOut                       // drop unsent messages
	fxDropIn                        // drop unread messages
	fxWriteStop                     // tell the peer to send no more
	fxWriteReset                    // tell the peer that both halves have ended
	fxWriteEnd                      // write the end after the data
	fxDone                          // both halves are over, on both sides
	fxRetire                        // the connection forgets the stream
)

// state is the state of both halves.
type state struct {
	send sendState
	recv recvState

	peerEnd   peerEnd
	sentEnded bool // we have written ENDED, which tells the peer so
	gotEnded  bool // the peer's ENDED has arrived: its application has seen ours
	noEnded   bool // the protocol has no ENDED: the peer never says so
	done      bool
	retired   bool
	resetOut  bool // write a reset before the connection forgets the stream
}

// closeSend: the application ends the sending half.
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

// peerStopped: the peer reads no more. The queue is dropped, and the end follows at once.
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
		if st.peerEnd != endSeen { // dropped data: this is not the end that the peer sent
			st.recv, st.peerEnd = recvStopEnd, endSeen
		}
		return fxDropIn | fxRecvOver | st.checkDone()
	}
	return 0
}

// peerEnded: the peer's end has arrived. ok is false if one had arrived before.
func (st *state) peerEnded() (fx effect, ok bool) {
	switch st.recv {
	case recvOpen:
		st.recv = recvEnded
		return fxRecvOver, true
	case recvStopped:
		st.recv = recvStopEnd
		st.peerEnd = endSeen
		return st.checkDone(), true
	case recvDead:
		return 0, true
	}
	return 0, false
}

// endSeen: the application has seen the peer's end.
func (st *state) endSeen() effect {
	if st.recv != recvEnded || st.peerEnd == endSeen {
		return 0
	}
	st.peerEnd = endSeen
	return st.checkDone()
}

// handEnd: all that the peer has sent was taken, its end has arrived, and we send no more.
// The peer need not wait until the application asks for the end, nor need who waits for the
// stream: it is done.
func (st *state) handEnd() effect {
	if st.send == sendOpen || st.recv != recvEnded || st.peerEnd != endUnseen {
		return 0
	}
	st.peerEnd = endHanded
	return st.checkDone()
}

// peerSawEnd: the peer's application has seen our end.
func (st *state) peerSawEnd() effect {
	st.gotEnded = true
	return st.checkDone()
}

// abort: this side ends both halves now. What has arrived stays. opened says whether the
// peer can know of the stream.
func (st *state) abort(opened bool) effect {
	if st.done || st.send == sendDead {
		return 0
	}
	retired := st.retired // the peer has forgotten the stream already
	fx := st.die()
	if retired {
		return fx
	}
	if !opened {
		st.retired = true
		return fx | fxRetire
	}
	st.resetOut = true
	return fx | fxWriteReset
}

// resetWritten: our reset is written. The connection can forget the stream.
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

// closedInOrder: the peer has closed the connection, on which both halves had ended.
func (st *state) closedInOrder() effect {
	stopped := st.recv == recvStopped || st.recv == recvStopEnd
	fx := st.lost()
	if stopped { // it is this side that has ended the half
		st.recv = recvStopEnd
	}
	return fx
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

// checkDone finds out whether both halves have ended in order, on both sides.
func (st *state) checkDone() effect {
	recvOver := st.peerEnd != endUnseen && (st.recv == recvEnded || st.recv == recvStopEnd)
	if st.done || st.send != sendEnded || !recvOver || !st.gotEnded && !st.noEnded || !st.sentEnded {
		return 0
	}
	st.done = true
	return fxDone | st.retire()
}

// canSend reports whether messages are accepted.
func (st *state) canSend() bool { return st.send == sendOpen }

// wantsData reports whether arriving data is kept.
func (st *state) wantsData() bool { return st.recv == recvOpen }

// dataAllowed reports whether the peer may still send data.
func (st *state) dataAllowed() bool {
	return st.recv == recvOpen || st.recv == recvStopped || st.recv == recvDead
}
