package kernel

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Handler serves one stream: see Handlers.Handle. ctx is the stream's Context.
type Handler func(ctx context.Context, s *Stream) error

// An OfferHandler answers one offer: see Handlers.HandleOffer. ctx is the Context of the
// offer's first stream.
type OfferHandler func(ctx context.Context, o *Offer) error

// A Middleware makes a handler of another: see Handlers.Use.
type Middleware func(next Handler) Handler

// Handlers says who serves the streams that the peer opens. The zero value is ready to
// use. One Handlers can serve any number of servers and clients, and can be changed while
// they run. It must not be copied.
//
// A pattern is one of three:
//   - a method, such as "pkg.Service/Method", for that method alone;
//   - a prefix that ends in a slash, such as "pkg.Service/", for all methods that begin
//     with it;
//   - "", for every method.
//
// The method itself comes before a prefix, a longer prefix before a shorter one, and ""
// last. Opens that no pattern matches go to Offers.
type Handlers struct {
	mu         sync.RWMutex // owns what follows
	of         map[string]*registration
	prefixes   []int           // the lengths of the patterns that are prefixes, or were, each once, longest first
	ordered    map[string]bool // by pattern: see Ordered
	middleware []Middleware
	forOffers  []func(OfferHandler) OfferHandler
	offers     chan *Offer // made by the first call of Offers
	rest       *entry      // for offers; nil before that
	maxOffers  int         // the largest Limits.MaxOffers of those who use the Handlers
}

// A registration is one pattern's handler: as it was registered, and inside the middleware.
type registration struct {
	at         string // file and line
	registered entry
	wrapped    *entry
}

// An entry is where an offer goes. One of its fields is set, beside ordered. What a pointer
// leads to is not changed: a goroutine may have it.
type entry struct {
	stream  Handler
	offer   OfferHandler
	queue   chan<- *Offer
	ordered bool // see Handlers.Ordered
}

// Handle registers h for streams whose method matches pattern. h runs in a goroutine for
// each stream; ctx is the stream's Context.
//
// The stream is accepted when h first uses it, or returns nil. If h returns nil, both
// halves end in order. If it returns an error, the sending half ends after what was sent,
// with the status that status.Of gives; an error before the first use refuses the stream. To
// ask for the request by Stream.Request is no use of the stream, but an error after that
// refuses it only where an end carries no status (brpc's streams).
//
// Handle may be called at any time. It panics if h is nil, or if the pattern has a
// handler; the panic names the places of both calls.
func (hs *Handlers) Handle(pattern string, h Handler) {
	mustBeGiven(h != nil, pattern)
	hs.add(pattern, entry{stream: h})
}

// HandleOffer registers h for opens whose method matches pattern. h accepts or rejects
// each; ctx is the first stream's Context. If h returns nil, the accepted streams stay open
// and their Contexts stay valid. If it returns an error, they end with the status that
// status.Of gives. If h has not answered the offer, it is rejected.
//
// HandleOffer panics if h is nil, or if the pattern has a handler.
func (hs *Handlers) HandleOffer(pattern string, h OfferHandler) {
	mustBeGiven(h != nil, pattern)
	hs.add(pattern, entry{offer: h})
}

// Ordered has the handler of a pattern serve the streams of each connection one after another,
// in the order in which they have come: the next begins when the handler has returned. The
// streams of all such patterns have one order. Other streams are served beside them, and so
// are those of other connections. Streams that wait count for Limits.MaxStreams.
//
// Without it handlers run at once, and a later stream may overtake an earlier one. With it, a
// handler that waits for a later stream of its order waits for ever. Ordered may be called
// before or after Handle and HandleOffer, for streams that are opened then; Remove undoes it.
func (hs *Handlers) Ordered(pattern string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.ordered == nil {
		hs.ordered = map[string]bool{}
	}
	hs.ordered[pattern] = true
	if r := hs.of[pattern]; r != nil {
		r.registered.ordered = true
		e := *r.wrapped
		e.ordered = true
		r.wrapped = &e
	}
}

// Remove removes the handler of a pattern. Streams that it serves go on. Remove does
// nothing if there is none.
func (hs *Handlers) Remove(pattern string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	delete(hs.of, pattern)
	delete(hs.ordered, pattern)
}

// Use adds middleware around every handler that Handle or package rpc has registered or
// will register. The first is the outermost: it sees a stream first, and learns of its
// handler's return last.
//
// A middleware finds the method, the metadata, the peer, its identity and the deadline in
// the stream, its Conn and ctx. By returning an error without calling next and without
// using the stream it refuses the stream. Stream.Done and Stream.Err tell how a stream ended,
// after the handler's return. Before next, middleware must not send, receive or take the
// request of a stream that package rpc serves.
//
// Use calls each middleware once for each handler, also again when more are added. They
// must not call methods of hs then. Use panics if one is nil or returns nil.
func (hs *Handlers) Use(middleware ...Middleware) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.rewrap(append(slices.Clone(hs.middleware), middleware...), hs.forOffers)
}

// UseOffer is Use for the handlers that HandleOffer registers. What goes to Offers has no
// middleware; ServerOptions.Authorize decides on it too.
func (hs *Handlers) UseOffer(middleware ...func(next OfferHandler) OfferHandler) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.rewrap(hs.middleware, append(slices.Clone(hs.forOffers), middleware...))
}

// Offers returns a channel of the opens that no pattern matches. The receiver accepts or
// rejects them. The channel holds Limits.MaxOffers; further opens are refused with
// status.ResourceExhausted. Before the first call of Offers all such opens are refused with
// status.Unimplemented. Every call returns the same channel, which is never closed.
//
// Of several servers and clients that use hs the largest MaxOffers counts, among those that
// were made before the first call of Offers; without any it is 1,024.
func (hs *Handlers) Offers() <-chan *Offer {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.offers == nil {
		if hs.maxOffers == 0 {
			hs.maxOffers = Limits{}.withDefaults().MaxOffers
		}
		hs.offers = make(chan *Offer, hs.maxOffers)
		hs.rest = &entry{queue: hs.offers}
	}
	return hs.offers
}

// patterns returns those that have a handler, in their order.
func (hs *Handlers) patterns() []string {
	hs.mu.RLock()
	defer hs.mu.RUnlock()
	return slices.Sorted(maps.Keys(hs.of))
}

// orNew returns hs for an endpoint with the given limits, a new Handlers if hs is nil.
func (hs *Handlers) orNew(l *Limits) *Handlers {
	if hs == nil {
		hs = &Handlers{}
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.maxOffers = max(hs.maxOffers, l.MaxOffers)
	return hs
}

// lookup returns where opens of method go. It reports false if there is no such place.
func (hs *Handlers) lookup(method string) (e *entry, ok bool) {
	hs.mu.RLock()
	defer hs.mu.RUnlock()
	if r := hs.of[method]; r != nil {
		return r.wrapped, true
	}
	for _, n := range hs.prefixes {
		if n > len(method) || method[n-1] != '/' {
			continue
		}
		if r := hs.of[method[:n]]; r != nil {
			return r.wrapped, true
		}
	}
	if r := hs.of[""]; r != nil {
		return r.wrapped, true
	}
	return hs.rest, hs.rest != nil
}

func (hs *Handlers) add(pattern string, e entry) {
	at := callSite()
	hs.mu.Lock()
	defer hs.mu.Unlock()
	mustBeFree(pattern, at, hs.of[pattern])
	e.ordered = hs.ordered[pattern]
	r := &registration{at: at, registered: e, wrapped: wrap(pattern, e, hs.middleware, hs.forOffers)}
	if hs.of == nil {
		hs.of = map[string]*registration{}
	}
	hs.of[pattern] = r
	hs.notePrefixes()
}

// notePrefixes updates prefixes when there is another pattern. The lock is held.
func (hs *Handlers) notePrefixes() {
	hs.prefixes = hs.prefixes[:0]
	for p := range hs.of {
		if strings.HasSuffix(p, "/") && !slices.Contains(hs.prefixes, len(p)) {
			hs.prefixes = append(hs.prefixes, len(p))
		}
	}
	slices.SortFunc(hs.prefixes, func(a, b int) int { return b - a })
}

// rewrap changes the middleware. If one of them panics, nothing is changed. The lock is
// held.
func (hs *Handlers) rewrap(middleware []Middleware, forOffers []func(OfferHandler) OfferHandler) {
	wrapped := map[*registration]*entry{}
	for pattern, r := range hs.of {
		wrapped[r] = wrap(pattern, r.registered, middleware, forOffers)
	}
	for r, e := range wrapped {
		r.wrapped = e
	}
	hs.middleware, hs.forOffers = middleware, forOffers
}

// wrap puts the handler of e inside the middleware for its kind.
func wrap(pattern string, e entry, middleware []Middleware, forOffers []func(OfferHandler) OfferHandler) *entry {
	for _, m := range slices.Backward(middleware) {
		if e.stream != nil {
			e.stream = m(e.stream)
			mustBeGiven(e.stream != nil, pattern)
		}
	}
	for _, m := range slices.Backward(forOffers) {
		if e.offer != nil {
			e.offer = m(e.offer)
			mustBeGiven(e.offer != nil, pattern)
		}
	}
	return &e
}

// mustBeGiven panics if the handler for pattern is nil. Otherwise every open of it would
// fail later.
func mustBeGiven(given bool, pattern string) {
	if !given {
		panic("sluice: nil handler for " + strconv.Quote(pattern))
	}
}

// mustBeFree panics if the pattern has a handler: one of the two would never run.
func mustBeFree(pattern, at string, first *registration) {
	if first != nil {
		panic(fmt.Sprintf("sluice: %s registers a second handler for %q, the first is from %s", at, pattern, first.at))
	}
}

// callSite is the file and line of the program's call that has led here: the first one
// that is in none of the packages with ways to register.
func callSite() string {
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if !more || !strings.HasPrefix(f.Function, modulePath+"kernel.") && !strings.HasPrefix(f.Function, modulePath+"rpc.") {
			return f.File + ":" + strconv.Itoa(f.Line)
		}
	}
}

const modulePath = "github.com/sluicerpc/sluice/"
