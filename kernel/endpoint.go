package kernel

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
	"github.com/sluicerpc/sluice/metadata"
)

// endpoint is what a server and a client have in common: handlers for streams that the
// peer opens, limits, timers, and hooks.
type endpoint struct {
	handlers  *Handlers
	limits    Limits
	stream    StreamOptions
	protocols []frame.Protocol
	checksum  bool
	token     []byte
	logger    *slog.Logger // guarded: see logs
	logs      logs
	timers    timers.Queue
	panics    atomic.Uint64
	pressure  atomic.Int64 // memory in use, in percent of Limits.Memory
	left      atomic.Int64 // of Limits.Memory, bytes
	growth    *conn.Growth // tells a server's budget; nil: there is none

	streamsByMemory bool // MaxTotalStreams is a default
	stacks          stacks
	process         goMemory
	lent            atomic.Int64 // bytes by which windows exceed Limits.ConnWindow
	authorize       func(ctx context.Context, id Identity, method string, md metadata.MD) error
	onConn          func(*Conn)
	onGoAway        func(*Conn)
	onCrowded       func(*Conn) // a server's: a connection was refused a stream for want of MaxTotalStreams
	observing       observing

	// What each stream changes, in a cache line of its own: what all only read stays in the
	// caches of all processors.
	_        [cacheLine]byte
	opened   atomic.Int64 // streams that peers have open
	handling atomic.Int64 // handlers that run or wait
	starts   starts
	_        [cacheLine]byte

	mu          sync.Mutex
	parents     map[uint64]*Conn // a server's connections that can have children, by their number
	parentAdded chan struct{}    // closed when parents gets a new one; nil if nobody waits
}

// cacheLine is the length of one, in bytes, or a multiple of it.
const cacheLine = 64

// guardLogger returns the program's logger as it is used here.
func (ep *endpoint) guardLogger(l *slog.Logger) *slog.Logger {
	ep.logs.panics = &ep.panics
	return ep.logs.logger(l)
}

// What a server does as its memory fills, in percent of Limits.Memory.
const (
	stopStarting  = 75 // handlers, where much is held for what is left until stopWaiting
	stopWaiting   = 85 // what holds the most is evicted, after a while
	stopOpening   = 90 // streams, where much is held for what is left
	stopHolding   = 95 // what holds the most is evicted at once
	stopAccepting = 95 // connections, where that did not help
)

// lendShare is which part of Limits.Memory is for windows that grow beyond ConnWindow: the
// promise of it, whether it is used or not.
const lendShare = 4

// lend lends n bytes to such windows, or takes them back if n is negative. It reports false if
// there is too little memory.
func (ep *endpoint) lend(n int) bool {
	lent := ep.lent.Add(int64(n))
	if n > 0 && ep.limits.Memory != Unlimited && (lent > int64(ep.limits.Memory/lendShare) || ep.pressure.Load() >= stopWaiting) {
		ep.lent.Add(-int64(n))
		return false
	}
	return true
}

// settings are those that this side announces. plain says that no layer below, such as
// TLS, detects changed bytes.
func (ep *endpoint) settings(caps *frame.Caps, plain bool) frame.Settings {
	l := &ep.limits
	return frame.Settings{
		Checksum:      plain && ep.checksum,
		MaxFragment:   uint64(caps.MaxFragment),
		MaxMessage:    uint64(l.MaxMessage),
		MaxStreams:    uint64(l.MaxStreams),
		MaxMetadata:   uint64(min(l.MaxMetadata, caps.MaxMetadata)),
		InitialCredit: uint64(conn.InitialCredit((*conn.Limits)(l))),
		ConnCredit:    uint64(max(l.ConnWindow, caps.ConnWindow)),
		Token:         ep.token,
		Compression:   caps.Compression,

		RefusalMetadata: true,
	}
}
