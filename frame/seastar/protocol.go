package seastar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Names of compression algorithms.
const (
	LZ4           = "LZ4"
	LZ4Fragmented = "LZ4_FRAGMENTED"
)

// DefaultLinger is the default of Protocol.Linger.
const DefaultLinger = time.Minute

// Protocol is Seastar's protocol, for a server's or client's list of them. Its
// zero value works; it must not be copied or changed once it is in use. A pointer
// to it belongs to one server, or to any number of clients.
type Protocol struct {
	// Compress names the algorithms that this side speaks, in the order in which a
	// client prefers them: LZ4, LZ4Fragmented. None by default, as with Seastar.
	Compress []string
	// Cookie is the isolation cookie that a client's connections send; nil for none.
	Cookie []byte
	// Isolate is called by a server for each connection with a cookie, those of streams
	// too. An error closes the connection, and so does a panic, or no return in the time
	// that Authenticate has. nil accepts every cookie.
	Isolate func(ctx context.Context, cookie []byte) error
	// NoStreams keeps a server from sending its clients the ID of their connection,
	// without which they can't open streams.
	NoStreams bool

	// MaxCalls is how many calls of one connection a server lets be served at once. A
	// connection with so many is not read until one is answered. 0 is Limits.MaxStreams. A
	// call that waits for a later one of its connection needs a limit that is larger than
	// the number of those that wait.
	MaxCalls int
	// MaxMemory is how many bytes the requests being served on all connections of a
	// server may cost together. A connection whose next request would exceed it is not
	// read until there is room. A request that costs more alone is answered with an
	// exception. 0 is no limit.
	MaxMemory int
	// RequestSize is what each request costs at least; Seastar calls it
	// basic_request_size.
	RequestSize int
	// Bloat is what a byte of a request costs; 0 is 1. Seastar: bloat_factor.
	Bloat int

	// NoExtensions keeps a client from sending sluice's extension of the hello. Where
	// client and server both send it, neither has to linger before it closes a stream's
	// connection.
	NoExtensions bool
	// Linger is how long a stream's connection waits for the peer's FIN when both
	// directions have ended; 0 is DefaultLinger. A Seastar peer that reads slowly
	// loses the end of its stream if the connection is closed earlier.
	Linger time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	parents parents
	once    sync.Once
	budget  budget
}

// Name returns "seastar".
func (p *Protocol) Name() string { return name }

// Detect looks for the magic.
func (p *Protocol) Detect(first []byte) frame.Verdict {
	n := min(len(first), len(magic))
	switch {
	case string(first[:n]) != magic[:n]:
		return frame.No
	case n < len(magic):
		return frame.More
	}
	return frame.Yes
}

// Caps tells what the protocol can carry.
func (p *Protocol) Caps() frame.Caps { return caps }

// agreed is what the two hellos have negotiated.
type agreed struct {
	compress string // "": none
	timeout  bool   // requests carry the time left
	duration bool   // responses carry the handler's time
	id       uint64 // of the connection; 0: none
	parent   uint64 // of a stream's connection; 0: the connection carries calls
	noLinger bool   // the peer does not lose an end that is followed by a FIN
	limit    int    // bytes of the longest message that we take
	maxCalls int    // of a server's connection, at once; 0: no limit
}

// Handshake exchanges hellos: the client's first. The session of a client whose
// greeting names a Parent, and of a server whose client's hello does, carries one
// stream; any other carries calls.
func (p *Protocol) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	p.once.Do(func() { p.budget.max = int64(p.MaxMemory) })
	if err := checkNames(p.Compress); err != nil {
		return nil, err
	}
	g.Peer = frame.Settings{
		MaxMessage: pool.MaxLen, MaxStreams: math.MaxInt32, MaxMetadata: math.MaxUint32,
		InitialCredit: 1 << 62, ConnCredit: 1 << 62, RefusalMetadata: true, // NoWait
	}
	a := agreed{limit: int(min(g.Own.MaxMessage, pool.MaxLen)), maxCalls: cmp.Or(p.MaxCalls, int(g.Own.MaxStreams))}
	if g.Client {
		return p.clientHandshake(rw, g, a)
	}
	return p.serverHandshake(ctx, rw, g, a)
}

func checkNames(names []string) error {
	for _, n := range names {
		if n != LZ4 && n != LZ4Fragmented {
			return fmt.Errorf("seastar: unknown compression %q", n)
		}
	}
	return nil
}

// clientHandshake is the client's side of the handshake.
func (p *Protocol) clientHandshake(rw io.ReadWriter, g *frame.Greeting, a agreed) (frame.Session, error) {
	_, err := rw.Write(appendHello(nil, p.clientHello(g.Parent)))
	var rs []record
	var rest []byte
	if err == nil {
		rs, rest, err = readHello(nil, rw)
	}
	if err != nil && g.Parent != 0 {
		err = refusedStream(g.Parent, err)
	}
	if err != nil {
		return nil, err
	}
	if err := p.takeServerHello(rs, g, &a); err != nil {
		return nil, err
	}
	g.Early, g.ID = rest, a.id
	if g.Parent != 0 {
		g.Peer.MaxStreams = 1
		return newStream(p, a, true), nil
	}
	return newClient(p, a), nil
}

// refusedStream is the error of a stream's handshake that failed with err: a server that
// refuses a stream closes its connection, and says no more.
func refusedStream(parent uint64, err error) error {
	var pe *status.ProtocolError
	var ne net.Error
	if errors.As(err, &pe) || errors.Is(err, net.ErrClosed) || errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	return &frame.Refused{Code: status.Refused, Cause: err, Reason: fmt.Sprintf(
		"the server has closed a stream's connection: it has too many, or connection %#x is not there", parent)}
}

// clientHello returns the records of a client's hello. On a stream's connection the
// timeouts and durations of calls have no meaning.
func (p *Protocol) clientHello(parent uint64) (rs []record) {
	if len(p.Compress) > 0 {
		rs = append(rs, record{featCompress, strings.Join(p.Compress, ",")})
	}
	if parent == 0 {
		rs = append(rs, record{featTimeout, ""})
	} else {
		rs = append(rs, record{featStreamParent, idData(parent)})
	}
	if len(p.Cookie) > 0 {
		rs = append(rs, record{featIsolation, string(p.Cookie)})
	}
	switch {
	case parent == 0:
		rs = append(rs, record{featHandlerDuration, ""})
	case !p.NoExtensions:
		rs = append(rs, record{featNoLinger, ""})
	}
	return rs
}

// takeServerHello reads the server's hello into g and a.
func (p *Protocol) takeServerHello(rs []record, g *frame.Greeting, a *agreed) (err error) {
	a.parent, a.noLinger = g.Parent, has(rs, featNoLinger)
	a.timeout, a.duration = has(rs, featTimeout), has(rs, featHandlerDuration)
	if chosen, ok := find(rs, featCompress); ok {
		if !slices.Contains(p.Compress, chosen) {
			return failf(status.Protocol, "the server has chosen compression %q, which was not offered", chosen)
		}
		a.compress = chosen
	}
	if data, ok := find(rs, featConnectionID); ok {
		if a.id, err = idOf(data); err != nil {
			return err
		}
	}
	if a.id == 0 && a.parent != 0 {
		return failf(status.Unimplemented, "the server serves no streams")
	}
	return nil
}

// serverHandshake is the server's side of the handshake. It refuses a client by closing
// the connection: the protocol has no other way.
func (p *Protocol) serverHandshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting, a agreed) (frame.Session, error) {
	rs, rest, err := readHello(g.First, rw)
	if err != nil {
		return nil, err
	}
	reply, err := p.serverHello(rs, &a)
	if err != nil {
		return nil, err
	}
	cookie, isolated := find(rs, featIsolation)
	g.Peer.Token = []byte(cookie)
	if g.Authenticate != nil {
		if err := g.Authenticate(ctx, &g.Peer); err != nil {
			return nil, failf(status.Unauthenticated, "%v", err)
		}
	}
	if isolated {
		if err := p.isolate(ctx, g, cookie); err != nil {
			return nil, failf(status.PermissionDenied, "isolation: %v", err)
		}
	}
	s, err := p.serverSession(ctx, a, g)
	if err != nil {
		return nil, err
	}
	if _, err := rw.Write(appendHello(nil, reply)); err != nil {
		s.Closed()
		return nil, err
	}
	g.Early, g.ID, g.Parent = rest, a.id, a.parent
	return s, nil
}

// isolate calls Protocol.Isolate for a connection with a cookie.
func (p *Protocol) isolate(ctx context.Context, g *frame.Greeting, cookie string) error {
	hook := func(ctx context.Context) error { return p.Isolate(ctx, []byte(cookie)) }
	switch {
	case p.Isolate == nil:
		return nil
	case g.Guard == nil:
		return hook(ctx)
	}
	return g.Guard(ctx, hook)
}

// serverHello chooses from what a client's hello offers, and returns the records of the
// answer.
func (p *Protocol) serverHello(rs []record, a *agreed) (reply []record, err error) {
	if names, ok := find(rs, featCompress); ok {
		for n := range strings.SplitSeq(names, ",") {
			if slices.Contains(p.Compress, n) {
				a.compress = n
				reply = append(reply, record{featCompress, n})
				break
			}
		}
	}
	if a.timeout = has(rs, featTimeout); a.timeout {
		reply = append(reply, record{featTimeout, ""})
	}
	if data, ok := find(rs, featStreamParent); ok {
		if p.NoStreams {
			return nil, failf(status.Unimplemented, "streams are not served")
		}
		if a.parent, err = idOf(data); err != nil {
			return nil, err
		}
		if a.parent == 0 {
			return nil, failf(status.Protocol, "a stream whose parent connection is 0")
		}
	}
	if !p.NoStreams {
		a.id = p.parents.nextID()
		reply = append(reply, record{featConnectionID, idData(a.id)})
	}
	if cookie, ok := find(rs, featIsolation); ok {
		reply = append(reply, record{featIsolation, cookie})
	}
	if a.duration = has(rs, featHandlerDuration); a.duration {
		reply = append(reply, record{featHandlerDuration, ""})
	}
	if a.noLinger = a.parent != 0 && has(rs, featNoLinger); a.noLinger {
		reply = append(reply, record{featNoLinger, ""})
	}
	return reply, nil
}

// serverSession makes a server's session. It registers the connection before its client
// has the answer, and with it the connection's ID.
func (p *Protocol) serverSession(ctx context.Context, a agreed, g *frame.Greeting) (frame.Session, error) {
	if a.parent == 0 {
		if a.id != 0 {
			p.parents.add(a.id)
		}
		return newServer(p, a), nil
	}
	if !p.parents.has(a.parent) {
		return nil, failf(status.Protocol, "a stream of connection %#x, which does not exist", a.parent)
	}
	if g.AddChild != nil {
		if err := g.AddChild(ctx, a.parent, a.id); err != nil {
			return nil, err
		}
	}
	return newStream(p, a, false), nil
}

func (p *Protocol) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

func (p *Protocol) linger() time.Duration {
	if p.Linger > 0 {
		return p.Linger
	}
	return DefaultLinger
}
