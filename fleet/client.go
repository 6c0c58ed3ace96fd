package fleet

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Options configure a Client. A nil pointer and the zero value are the defaults.
type Options struct {
	// Client are the options of the connections to each endpoint. Conns is for each; with
	// kernel.ConnPooled and kernel.ConnShort each endpoint has such connections. Backoff is
	// between two attempts to connect to one endpoint, with the jitter upwards alone. Handlers
	// serve all of them. An Observer is told by several goroutines, one for each endpoint.
	Client kernel.ClientOptions
	// Resolvers are further ones, by scheme. They come before those that every fleet has.
	Resolvers map[string]Resolver
	// Filter says which endpoints of a set count; nil is all. It is called for one after the
	// other, in a goroutine of its own, and must not wait: meanwhile the fleet stays as it is.
	// If it panics, the set is no set.
	Filter func(Endpoint) bool
	// Drain is how long an endpoint that was removed is kept for the streams and calls that
	// are open there. What is open then ends as kernel.Client.Close ends it. Zero is 10
	// minutes; kernel.Unlimited has no end.
	Drain time.Duration
	// Balancer says how calls and streams are spread over the endpoints.
	Balancer Balancer
	// Key is what Ketama needs: it says which key a call or an open has. It runs in the
	// caller's goroutine. If it panics the call or open fails.
	Key KeyFunc
	// Subset is how many endpoints the client uses at most: a part of the fleet that is
	// drawn at random for each client, and changes as little as it can when the fleet does.
	// Where many clients use a large fleet it bounds the connections of both. Zero is all.
	// Ketama has none.
	Subset int
	// Failures is how many calls in a row must fail until their endpoint is ejected: it gets no
	// calls and streams for a while, as Client.Backoff says for a first time, a second and so
	// on. Then it gets calls again; the first that fails ejects it again, and one that succeeds
	// makes it one like any other. A call fails by UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL,
	// RESOURCE_EXHAUSTED, REFUSED, CONNECTION_LOST, KEEPALIVE and WRITE_STALL; with any other
	// code the endpoint does its work. Zero is 5; kernel.Unlimited ejects none. An endpoint that
	// can't be reached gets no calls in any case.
	Failures int
	// MostEjected is the part of the endpoints that can be ejected at a time, up to 1. Zero is
	// 0.5: where more fail, the fault is not theirs.
	MostEjected float64
}

const (
	defaultDrain       = 10 * time.Minute
	defaultFailures    = 5
	defaultMostEjected = 0.5
)

// A Client is a kernel.Caller whose calls and streams go to the endpoints of a fleet. It
// connects to an endpoint when a call or stream is due to go there, in the background as long
// as it has another one that is connected. A stream stays on the connection that it was opened
// on.
//
// All methods may be called at the same time.
type Client struct {
	opts     Options
	target   string
	name     string // what the resolver is asked for
	protocol string // what the targets of endpoints begin with
	resolver Resolver
	model    *kernel.Client // never connects: it knows the protocol and has checked the options
	own      kernel.ClientOptions
	began    time.Time
	closing  context.Context // ends with Close
	close    context.CancelFunc
	again    chan struct{} // to the resolver: a connection has failed

	table   atomic.Pointer[table] // nil: there was no set yet
	seed    maphash.Seed          // of this client's own order of the endpoints
	turns   atomic.Uint64         // picks so far
	dials   atomic.Int64          // under way
	failed  atomic.Uint64         // dials that have
	lastErr atomic.Pointer[error] // of them

	mu      sync.Mutex
	members map[memberKey]*member
	sets    uint64    // that were taken
	setAt   time.Time // when the last one was
	setErr  string    // of the last set, taken or not
	changed chan struct{}
	tokens  tokens
	closed  bool
	wg      sync.WaitGroup // the goroutines
	done    chan struct{}  // closed when Close is done
}

var _ kernel.Caller = (*Client)(nil)

// NewClient returns a client of the fleet that target names, and begins to watch it:
//
//	list://a:7000,b:7000    these endpoints
//	file:///etc/servers     those in a file: see File
//	dns://svc.test:7000     the addresses of a name, or the targets of SRV records: see DNS
//	other://NAME            what Options.Resolvers say
//	host:7000               the one, like any target of kernel.Dial
//
// "protocol+" before the scheme chooses one of Options.Client.Protocols, as "protocol://" does
// for kernel.Dial: "grpcs+dns://svc.test:443". NewClient does not connect. It fails with
// kernel.ErrLimits, or because of the target or the options of Client.
func NewClient(target string, opts *Options) (*Client, error) {
	c := &Client{
		target: target, members: map[memberKey]*member{}, began: time.Now(),
		seed: maphash.MakeSeed(), again: make(chan struct{}, 1), changed: make(chan struct{}), done: make(chan struct{}),
		tokens: tokens{n: dialBurst},
	}
	if opts != nil {
		c.opts = *opts
	}
	if err := c.opts.check(); err != nil {
		return nil, err
	}
	if err := c.parse(); err != nil {
		return nil, err
	}
	var err error
	if c.model, err = kernel.NewClient(c.protocol+"localhost:1", &c.opts.Client); err != nil {
		return nil, errtext.Errorf("sluice: fleet %s: %w", errtext.Quote(target), err)
	}
	c.own = c.model.Options()
	c.closing, c.close = context.WithCancel(context.Background())
	c.wg.Add(1)
	go c.run()
	return c, nil
}

// Dial is NewClient, and makes a first connection. If that fails, or ctx ends before, so does
// Dial. ctx bounds the first connection only.
func Dial(ctx context.Context, target string, opts *Options) (*Client, error) {
	c, err := NewClient(target, opts)
	if err != nil {
		return nil, err
	}
	if _, err := c.Conn(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// parse finds the resolver and the protocol in the target.
func (c *Client) parse() error {
	all := resolvers()
	maps.Copy(all, c.opts.Resolvers)
	scheme, name, ok := strings.Cut(c.target, "://")
	protocol, rest, both := strings.Cut(scheme, "+")
	switch {
	case ok && both && all[rest] != nil:
		c.protocol, c.resolver, c.name = protocol+"://", all[rest], name
	case ok && all[scheme] != nil:
		c.resolver, c.name = all[scheme], name
	case ok && both:
		return fmt.Errorf("sluice: fleet %s: no resolver %q", errtext.Quote(c.target), rest)
	case ok && !strings.HasPrefix(c.target, "unix:"):
		c.protocol, c.resolver, c.name = scheme+"://", list, name
	default:
		c.resolver, c.name = list, c.target
	}
	return nil
}

// Options returns the client's options, with the defaults of fields that were zero. What is
// changed in them changes nothing. They hold its Token.
func (c *Client) Options() Options {
	o := c.opts
	o.Client = c.own
	return o
}

// Caps tells what the fleet's protocol can carry. It needs no connection.
func (c *Client) Caps() frame.Caps { return c.model.Caps() }

// start runs f in a goroutine that Close waits for. It reports false once Close was called.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		f()
	}()
	return true
}

// change wakes all who wait for an endpoint.
func (c *Client) change() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// changes returns a channel that is closed at the next change.
func (c *Client) changes() (changed <-chan struct{}, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed, c.closed
}

// now is the time since the client began.
func (c *Client) now() time.Duration { return time.Since(c.began) }

// Close closes the client and all its connections, and waits until they have ended. Streams
// that are open fail: see kernel.Conn.Close. It does not wait for a Resolver of the program's.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		<-c.done
		return nil
	}
	c.close()
	c.change()
	c.wg.Wait() // nobody changes members any more
	var clients sync.WaitGroup
	for _, m := range c.members {
		if k := m.end(); k != nil {
			clients.Go(func() { _ = k.Close() })
		}
	}
	clients.Wait()
	_ = c.model.Close()
	close(c.done)
	return nil
}

func (c *Client) errClosed() error {
	return errtext.Errorf("sluice: open at %s: %w", errtext.Quote(c.target), kernel.ErrClosed)
}

// An address is a fleet's target as the address of an error.
type address string

// Network implements net.Addr.
func (address) Network() string { return "fleet" }

// String implements net.Addr.
func (a address) String() string { return errtext.Quote(string(a)) }

// unavailable is the error where there is no endpoint.
func (c *Client) unavailable(text string) error {
	return &status.ConnError{Addr: address(c.target), Op: "dial", Code: status.Unavailable, Err: errors.New(text)}
}

var (
	errNoSet    = errors.New("the registry has given no endpoints")
	errEnded    = errors.New("the resolver has closed its channel")
	errNoChan   = errors.New("the resolver has returned no channel")
	errExit     = errors.New("called runtime.Goexit")
	errTooMany  = fmt.Errorf("more than %d endpoints", mostEndpoints)
	errFiltered = errors.New("Options.Filter has left no endpoint")
)
