package kernel

import (
	"context"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Open opens a stream. It does not wait for the peer: data can be sent before the peer has
// accepted the stream; Stream.Accepted waits for that.
//
// ctx bounds the stream's life. When it ends the stream is aborted, unless this side has
// sent everything and received the peer's end. The time left until its deadline is sent to
// the peer.
//
// Where Caps.StreamsByID holds, a client makes a connection for the stream. The method must
// be empty; a call names the stream afterwards.
//
// Nil opts are the defaults. Errors: ErrTooManyStreams, ErrGoingAway, the connection's
// status.ConnError, ErrMetadataTooLarge, ErrMetadataKey, ErrTooLarge, ErrLimits, ErrNotSupported.
func (c *Conn) Open(ctx context.Context, method string, opts *OpenOptions) (*Stream, error) {
	ss, err := c.openAny(ctx, method, opts, 1, nil)
	if err != nil {
		return nil, err
	}
	return ss[0], nil
}

// OpenN opens len(each) streams with one request; the peer accepts or refuses them
// together. Aborting the first before it is answered aborts all. What is zero in each comes
// from opts.Stream.
func (c *Conn) OpenN(ctx context.Context, method string, opts *OpenOptions, each ...StreamOptions) ([]*Stream, error) {
	return c.openAny(ctx, method, opts, len(each), each)
}

// openAny opens streams on c, or on children of c if each stream has a connection of its
// own.
func (c *Conn) openAny(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	call := opts != nil && opts.unary
	switch {
	case c.isOneStream():
		return nil, errtext.Errorf("sluice: open %s: %w: over %s a stream's connection carries no other stream", method, ErrNotSupported, c.protocol)
	case c.hasNumberedStreams() && c.owner != nil && !call:
		return c.owner.openChildren(ctx, c, method, opts, n, each)
	}
	return c.open(ctx, method, opts, n, each)
}

func errGroup(n, most int) error {
	return fmt.Errorf("%w: %d streams in one request, allowed are 1 to %d", ErrLimits, n, most)
}

func (c *Conn) open(ctx context.Context, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	if opts == nil {
		opts = &OpenOptions{}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, errtext.Errorf("sluice: open %s: %w", method, err)
	}
	if opts.Dedicated {
		if c.owner == nil {
			return nil, errtext.Errorf("sluice: open %s: %w: a server does not dial", method, ErrNotSupported)
		}
		return c.owner.openDedicated(ctx, c, method, opts, n, each)
	}
	var one [1]StreamOptions
	own, err := c.checkOpen(one[:0], method, opts, n, each) // before Reserve, which can have others wait
	if err != nil {
		return nil, err
	}
	fresh, err := c.c.Reserve(n, opts.exclusively)
	if err != nil {
		return nil, errtext.Errorf("sluice: open %s: %w", method, err)
	}
	f := frame.GetFrame(frame.Open)
	ss := c.makeStreams(method, opts, own, fresh, f)
	asked := false
	defer func() {
		if !asked { // the context, or the request, is such that sendOpen has panicked
			abortAll(ss)
		}
	}()
	err = c.sendOpen(ctx, ss, f, method, opts, own)
	asked = true
	return ss, err
}

func abortAll(ss []*Stream) {
	for _, s := range ss {
		s.Abort(status.Cancelled, "the program panicked")
	}
}

// checkOpen returns an error if what is asked of an open can't be done, and else appends the
// complete options of each of its n streams to own.
func (c *Conn) checkOpen(own []StreamOptions, method string, opts *OpenOptions, n int, each []StreamOptions) ([]StreamOptions, error) {
	if opts == nil {
		opts = &OpenOptions{}
	}
	if !c.client && !c.caps.ServerOpens {
		return nil, errtext.Errorf("sluice: open %s: %w: over %s only clients open streams", method, ErrNotSupported, c.protocol)
	}
	if n < 1 || n > c.caps.MaxGroup {
		return nil, errGroup(n, c.caps.MaxGroup)
	}
	err := c.checkMetadata(opts.Metadata, len(method))
	if err == nil {
		err = c.checkCompression(pool.CompressionOf(opts.Request), c.unpacks(opts.unary))
	}
	if err == nil {
		own, err = c.streamOptions(own, opts, n, each)
	}
	if err == nil && opts.Request.Len() > c.maxSend(&own[0]) {
		err = fmt.Errorf("%w: request of %d bytes, the limit is %d", ErrTooLarge, opts.Request.Len(), c.maxSend(&own[0]))
	}
	if err != nil {
		return nil, errtext.Errorf("sluice: open %s: %w", method, err)
	}
	return own, nil
}

// streamOptions appends the complete options of each of the n streams of a request.
func (c *Conn) streamOptions(own []StreamOptions, opts *OpenOptions, n int, each []StreamOptions) ([]StreamOptions, error) {
	common := opts.Stream.over(c.streamDefaults(c.unpacks(opts.unary)))
	for i := range n {
		so := common
		if each != nil {
			so = each[i].over(&common)
		}
		so, err := so.withDefaults()
		if err == nil {
			err = c.checkCompression(so.Compression, c.unpacks(opts.unary))
		}
		if err == nil {
			_, err = c.named(so.Compression, pool.CompressionOf(opts.Request))
		}
		if err != nil {
			return nil, err
		}
		own = append(own, so)
	}
	return own, nil
}

// makeStreams makes one stream for each of own, for which Reserve has made room, and adds
// their grants to f. Nobody else knows the streams yet.
func (c *Conn) makeStreams(method string, opts *OpenOptions, own []StreamOptions, fresh int, f *frame.Frame) []*Stream {
	n := len(own)
	ss := make([]*Stream, n)
	var previous *conn.Port
	for i := range ss {
		so := &own[i]
		s := &Stream{}
		ss[i] = s
		s.c.conn, s.c.method, s.c.opener, s.c.unary = c, method, true, opts.unary
		credit := c.c.OpenLocal(&s.c.Port, &s.c, previous, fresh)
		previous = &s.c.Port
		window, most := 0, 0
		if !so.NoReceive || c.caps.FixedWindow { // what the peer sends nevertheless is dropped
			window, most = s.c.FirstWindow(so.Window, 0)
		} else {
			s.c.NoWindow()
		}
		named, _ := c.named(so.Compression, pool.CompressionOf(opts.Request))
		f.Compression = named
		s.c.Init(&s.c, s.c.config(so, named, most, false))
		s.c.BeginWith(window, credit)
		f.Grants = append(f.Grants, frame.Grant{Credit: s.c.Granted(), Limit: uint64(so.SendLimit), NoReceive: so.NoReceive})
	}
	if n > 1 {
		cores := make([]*core, n)
		for i, s := range ss {
			cores[i] = &s.c
			s.c.more().siblings = cores
		}
	}
	return ss
}

// sendOpen hands the request f to the streams' actors, which write it.
// Its last step can fail, and the request is the caller's then.
func (c *Conn) sendOpen(ctx context.Context, ss []*Stream, f *frame.Frame, method string, opts *OpenOptions, own []StreamOptions) error {
	f.Method, f.Metadata, f.Unary, f.NoReply = method, opts.Metadata, opts.unary, opts.noReply
	first := ss[0]
	if opts.Metadata != nil {
		first.c.more().metadata = opts.Metadata
	}
	inline := c.inlined(opts.Request, len(ss))
	if inline {
		f.Hold(opts.Request)
	} else {
		f.FollowsData = true
	}
	f.Deadline = timeLeft(ctx, opts, own)
	for i, s := range ss {
		if d, ok := lifeOf(ctx, opts, &own[i]).Deadline(); ok {
			s.c.setDeadline(d)
		}
	}
	for i, s := range ss { // from the first of these on all of them may end
		s.c.startDeadline()
		s.c.setParent(lifeOf(ctx, opts, &own[i]))
		c.endpoint.observing.begun(&s.c.life, event{stream: s})
	}
	first.c.SetFirstFrame(f)
	if !inline {
		return first.c.Push(opts.Request)
	}
	return nil
}

// lifeOf is the context that bounds the life of a stream with options so.
func lifeOf(ctx context.Context, opts *OpenOptions, so *StreamOptions) context.Context {
	switch {
	case opts.noReply:
		return detached{ctx}
	case opts.unary || so.Context == nil:
		return ctx
	}
	return so.Context
}

// timeLeft is the time until the last deadline of the streams of a request, 0 if one of
// them has none.
func timeLeft(ctx context.Context, opts *OpenOptions, own []StreamOptions) time.Duration {
	most := time.Duration(0)
	for i := range own {
		d, ok := lifeOf(ctx, opts, &own[i]).Deadline()
		if !ok {
			return 0
		}
		most = max(most, time.Until(d), time.Microsecond)
	}
	return most
}
