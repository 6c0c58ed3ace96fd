package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/timers"
)

// host is what a server and a client have in common: handlers for streams that
// the other side opens, limits and timers.
type endpoint struct {
	limits    Limits
	stream    StreamOptions
	protocols []Protocol
	checksum  bool
	token     []byte
	logger    *slog.Logger
	timers    timers.Queue
	panics    atomic.Uint64
	pressure  atomic.Int64 // memory held, in percent of the limit
	authorize func(ctx context.Context, id Identity, method string, md Metadata) error
	onConn    func(*Conn)
	onGoAway  func(*Conn)

	mu          sync.RWMutex
	handlers    map[string]entry
	parents     map[uint64]*Conn // by number; a server's
	parentAdded chan struct{}    // closed when there is one more; nil if nobody waits
	offers      chan *Offer      // made by the first call of Offers
}

// The steps, in percent of Limits.Memory.
const (
	stopAccepting = 85
	stopOpening   = 90
	stopHolding   = 95

	budgetLook = 100 * time.Millisecond
)

// mustBeGiven panics if the handler for method is nil: it is better to hear of that
// at once than by every open's failing.
func mustBeGiven(given bool, method string) {
	if !given {
		panic("sluice: nil handler for " + strconv.Quote(method))
	}
}

func (ep *endpoint) handle(method string, e entry) {
	mustBeGiven(e.stream != nil || e.offer != nil, method)
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.handlers == nil {
		ep.handlers = map[string]entry{}
	}
	ep.handlers[method] = e
}

// lookup finds what serves method; the zero entry is for Offers.
func (ep *endpoint) lookup(method string) (entry, bool) {
	ep.mu.RLock()
	defer ep.mu.RUnlock()
	e, ok := ep.handlers[method]
	return e, ok || ep.offers != nil
}

// panicked counts and logs a handler's panic; nil is the goroutine's exit.
func (ep *endpoint) panicked(method string, peer net.Addr, r any) {
	ep.logPanic("sluice: handler panicked", "method", method, peer, r)
}

var errHook = errors.New("the hook panicked")

// hook calls one of the program's hooks. A panic, or its goroutine's exit, is counted
// and logged as a handler's is, and gives errHook.
func (ep *endpoint) hook(name string, peer net.Addr, f func() error) (err error) {
	returned := false
	defer func() {
		if r := recover(); !returned {
			ep.logPanic("sluice: hook panicked", "hook", name, peer, r)
			err = errHook
		}
	}()
	err = f()
	returned = true
	return err
}

func (ep *endpoint) logPanic(text, what, name string, peer net.Addr, r any) {
	if r == nil {
		r = "runtime.Goexit"
	}
	ep.logger.Error(text, what, name, "peer", peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	ep.panics.Add(1)
}

// settings is what we say about ourselves over a protocol. plain says that nothing below
// it finds bytes that were changed on the way.
func (ep *endpoint) settings(caps *frame.Caps, plain bool) frame.Settings {
	l := &ep.limits
	return frame.Settings{
		Checksum:      plain && ep.checksum,
		MaxFragment:   uint64(caps.MaxFragment),
		MaxMessage:    uint64(l.MaxMessage),
		MaxStreams:    uint64(l.MaxStreams),
		MaxMetadata:   uint64(min(l.MaxMetadata, caps.MaxMetadata)),
		InitialCredit: uint64(l.InitialCredit()),
		ConnCredit:    uint64(max(l.ConnWindow, caps.ConnWindow)),
		Token:         ep.token,
	}
}
