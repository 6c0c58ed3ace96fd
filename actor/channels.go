package actor

import (
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/pool"
)

// channels are the channels of a stream, each made on first use, and what goes with
// them. The stream sends on all but out.
type channels struct {
	in      inBuffer          // stream -> user
	batches chan *Batch       // stream -> user
	out     chan pool.Message // user -> stream; the stream never closes it
	slots   chan Slot         // stream -> user

	sendDone     chan struct{}
	done         chan struct{}
	ctxDone      chan struct{}
	answered     chan struct{}
	feedStop     chan struct{} // closed when feedStopped is set
	receiverWake chan struct{} // wakes a Receive; holds one token

	inbound       receiveChannel // the one in use
	inboundClosed bool
	feedStopped   bool       // this side reads no more
	cut           error      // why, if the stream had not failed; nil: this side has closed it
	pump          *func()    // feeds in or batches
	rest          *batchRest // of batches that Receive took; nil: none yet
	lent          *lent      // what ReceiveBatch has returned; nil: it was not called
	lends         bool       // small messages arrive in bundles
	receivers     int32      // Receives that wait for receiverWake
	feeders       int32      // calls of BeginFeed without EndFeed

	sendOver bool // the sending half takes no more
	outRuns  bool // the goroutine that takes from out
	endAsked bool // the application has ended the half while it runs

	slotOut     bool   // a slot is in slots, or the application has it
	slotGen     uint32 // number of that slot
	slotWatched bool   // RoomGone will be called
	slotsClosed bool
	slotSince   timers.Stamp // since when there is no credit or room for a slot; 0: there is, or nobody asked

	waiters waiters
	idle    *idler
}

// A receiveChannel is a channel by which a stream is read.
type receiveChannel uint8

const (
	channelNone receiveChannel = iota // Receive reads the mailbox
	channelIn
	channelBatches
)

// closed is returned where what a channel is to announce has already happened.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// wakeReceiver wakes one Receive, if any waits.
func (ch *channels) wakeReceiver() {
	if ch == nil || ch.receivers == 0 {
		return
	}
	select {
	case ch.receiverWake <- struct{}{}:
	default:
	}
}

// awaitBatch counts a Receive that is about to wait for a batch.
func (ch *channels) awaitBatch() {
	if ch.rest == nil {
		ch.rest = &batchRest{more: make(chan struct{}, 1)}
	}
	ch.rest.waiting++
}
