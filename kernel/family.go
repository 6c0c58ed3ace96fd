package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
)

// What is here serves protocols on which a stream has a connection of its own,
// and calls are made on another, its parent (frame.Caps.StreamsByID): the
// parent's end ends its children, and a call on it names a stream by number.

var (
	errNoParent = errors.New("the connection that the stream belongs to is gone")
	errTwice    = errors.New("the number of its stream is another one's already")
	// errNoChild is why a call can't have the stream that it names.
	errNoChild = errors.New("no such stream, or another call has it")
)

// A family is what a connection knows of those that belong to it.
type family struct {
	id uint64

	mu       sync.Mutex
	over     bool
	draining bool // no call will come any more
	children map[uint64]*Conn
	kept     map[uint64]*kept // that no call has named yet; a server's
	coming   int              // of them, those whose connection is not there yet
	served   int              // streams that functions serve
	opening  int              // streams that are about to be opened; a client's
}

// kept is a stream that waits for the call that names it.
type kept struct {
	s    *Stream
	here chan struct{} // closed when s is there, or never will be
}

// kin is a connection's place in its family.
type kin struct {
	family *family // of a parent
	parent *Conn   // of a child
	id     uint64  // of a child
	holds  bool    // a child: it keeps its parent from being idle or drained; owned by the family's lock
	opened bool    // a client's child: its stream was opened; owned by the family's lock

	serving int // a child: functions that serve its stream; owned by the family's lock
}

// joinFamily finds a connection's place. It is called before anything happens on it.
func (c *Conn) joinFamily(g *frame.Greeting, parent *Conn) error {
	switch {
	case !c.caps.StreamsByID:
		return nil
	case g.Parent == 0:
		c.kin.family = &family{id: g.ID, children: map[uint64]*Conn{}, kept: map[uint64]*kept{}}
		if !c.client && g.ID != 0 {
			c.host.addParent(c)
		}
		return nil
	case parent == nil:
		parent, _ = c.host.parentOf(g.Parent)
	}
	if parent == nil {
		return errNoParent
	}
	c.kin.parent, c.kin.id = parent, g.ID
	return parent.kin.family.adopt(c)
}

func (h *host) addParent(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parents == nil {
		h.parents = map[uint64]*Conn{}
	}
	h.parents[c.kin.family.id] = c
	if h.oneMore != nil {
		close(h.oneMore)
		h.oneMore = nil
	}
}

// parentOf returns a connection by its number or, if it is not there, what is
// closed when another one comes.
func (h *host) parentOf(id uint64) (*Conn, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.parents[id]; c != nil {
		return c, nil
	}
	if h.oneMore == nil {
		h.oneMore = make(chan struct{})
	}
	return nil, h.oneMore
}

// expect notes that stream id is about to be opened on a connection that belongs
// to parent, and returns what takes that back. The parent itself may have been
// welcomed a moment ago.
func (h *host) expect(ctx context.Context, parent, id uint64) (undo func(), err error) {
	for {
		c, more := h.parentOf(parent)
		if c != nil {
			f := c.kin.family
			return func() { f.forget(id) }, f.expect(id, h.limits.MaxStreams)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return func() {}, errNoParent
		}
	}
}

// begin makes room for n more streams, or for none, if there may be most. A connection
// whose stream is over does not count.
func (f *family) begin(n, most int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.children)+f.opening+n > most && f.open()+f.opening+n > most {
		return fmt.Errorf("%w: %d", ErrTooManyStreams, most)
	}
	f.opening += n
	return nil
}

// begun follows begin, for one of the n: its stream is open on c.
func (f *family) begun(c *Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening--
	c.kin.opened = true
}

// unbegun follows begin, for n of them that nothing came of.
func (f *family) unbegun(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening -= n
}

// open is how many streams are open. The lock is held.
func (f *family) open() (n int) {
	for _, k := range f.children {
		if k.kin.opened && k.c.Streams() > 0 {
			n++
		}
	}
	return n
}

// endingShare is how many connections of streams there may be for each stream that
// is allowed: those of streams that are over for their client end a little later.
const endingShare = 4

func (f *family) expect(id uint64, most int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over:
		return errNoParent
	case len(f.children)+f.coming >= endingShare*most:
		return &frame.Refused{Code: CodeRefused, Reason: fmt.Sprintf("%d streams are open", len(f.children)), Cause: ErrTooManyStreams}
	}
	f.kept[id] = &kept{here: make(chan struct{})}
	f.coming++
	return nil
}

// forget drops a stream that nothing came of, or that has ended before a call has
// named it: nobody will read what it holds.
func (f *family) forget(id uint64) {
	f.mu.Lock()
	k := f.kept[id]
	delete(f.kept, id)
	if k != nil && f.children[id] == nil {
		f.coming--
	}
	f.mu.Unlock()
	switch {
	case k == nil:
	case k.s == nil:
		close(k.here)
	default:
		k.s.discard()
	}
}

// serving counts n more functions that serve the stream of a child. They are no
// handlers of the parent: calls must not wait for streams that last.
func (c *Conn) serving(n int) {
	if c.kin.parent == nil {
		return
	}
	f := c.kin.parent.kin.family
	f.mu.Lock()
	defer f.mu.Unlock()
	before := c.kin.serving
	c.kin.serving += n
	switch {
	case before == 0:
		f.served++
	case c.kin.serving == 0:
		f.served--
	}
}

func (f *family) adopt(c *Conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return errNoParent
	}
	if f.children[c.kin.id] != nil { // a server that gives a number twice
		return errTwice
	}
	f.children[c.kin.id] = c
	if f.kept[c.kin.id] != nil {
		f.coming--
	}
	if !f.draining { // else no call can name its stream
		c.kin.hold()
	}
	return nil
}

// hold has the parent live on for the stream of a child. The family's lock is held.
func (k *kin) hold() {
	if !k.holds {
		k.holds = true
		k.parent.c.Hold()
	}
}

// unhold takes it back, and returns what is to be done about that when the family's
// lock is free: the parent may end.
func (k *kin) unhold() func() {
	if !k.holds {
		return func() {}
	}
	k.holds = false
	return k.parent.c.Unhold
}

// drain ends the connection in order: see conn.Conn.Drain. It does not wait for
// streams that no call has named, for none will: a call that is under way and does
// is waited for itself.
func (c *Conn) drain() {
	if f := c.kin.family; f != nil {
		var undo []func()
		f.mu.Lock()
		f.draining = true
		for id := range f.kept {
			if k := f.children[id]; k != nil {
				undo = append(undo, k.kin.unhold())
			}
		}
		f.mu.Unlock()
		for _, u := range undo {
			u()
		}
	}
	c.c.Drain()
}

// leaveFamily is called when the connection has ended: a parent's children end
// with it.
func (c *Conn) leaveFamily() {
	if p := c.kin.parent; p != nil {
		f := p.kin.family
		f.forget(c.kin.id)
		f.mu.Lock()
		if f.children[c.kin.id] == c {
			delete(f.children, c.kin.id)
		}
		unhold := c.kin.unhold()
		f.mu.Unlock()
		unhold()
	}
	f := c.kin.family
	if f == nil {
		return
	}
	c.host.mu.Lock()
	if c.host.parents[f.id] == c {
		delete(c.host.parents, f.id)
	}
	c.host.mu.Unlock()
	f.mu.Lock()
	f.over = true
	children := make([]*Conn, 0, len(f.children))
	for _, k := range f.children {
		children = append(children, k)
	}
	f.mu.Unlock()
	shut := c.retired.isShut()
	for _, k := range children {
		if shut {
			k.retired.endFeeding()
		}
		k.c.Fail("close", frame.CodeConnectionLost, fmt.Errorf("the parent connection has ended: %w", c.err))
	}
}

// keep accepts the one stream of a child's connection, for the call that will
// name it.
func (c *Conn) keep(f *frame.Frame) *conn.Refusal {
	o := c.offer(f)
	s, err := o.Accept(Message{}, nil)
	if err != nil {
		return nil // it was given up: there is nobody to tell
	}
	p := c.kin.parent.kin.family
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.kept[c.kin.id]; k != nil {
		k.s = s
		close(k.here)
	}
	return nil
}

// CallRef is how a call names the stream where Caps.StreamsByID says that calls do:
// by the number id, in a call on the connection on. Elsewhere on is nil.
func (s *Stream) CallRef() (on *Conn, id uint64) { return s.c.conn.kin.parent, s.c.conn.kin.id }

// TakeStream takes the stream that a call on c names as id: what CallRef gives on the
// other side. Each can be taken once. A stream whose connection is still being set up
// is waited for, until ctx ends. It fails with ErrTooManyStreams where four times
// Limits.MaxStreams are being served, and if there is no such stream.
func (c *Conn) TakeStream(ctx context.Context, id uint64) (*Stream, error) {
	f := c.kin.family
	if f == nil {
		return nil, errNoChild
	}
	f.mu.Lock()
	k := f.kept[id]
	f.mu.Unlock()
	if k == nil {
		return nil, errNoChild
	}
	select {
	case <-k.here:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept[id] != k { // another call was faster, or the stream is gone
		return nil, errNoChild
	}
	if most := c.host.limits.MaxStreams; f.served >= endingShare*most {
		return nil, fmt.Errorf("%w: %d, or functions still serve those that have ended", ErrTooManyStreams, most)
	}
	delete(f.kept, id)
	if s := f.children[id]; s != nil {
		s.kin.hold()
	}
	return k.s, nil
}

// openChildren opens n streams on connections of their own, which belong to k. A
// call on k then names them.
func (c *Client) openChildren(ctx context.Context, k *Conn, method string, opts *OpenOptions, n int, each []StreamOptions) ([]*Stream, error) {
	switch {
	case method != "" || opts != nil && (!opts.Request.IsZero() || opts.Metadata != nil):
		return nil, fmt.Errorf("sluice: open %s: %w: over %s a stream is opened without a method or a request, and passed to a call",
			method, ErrNotSupported, k.protocol)
	case k.kin.family.id == 0:
		return nil, fmt.Errorf("sluice: open at %s: %w: the server serves no streams", c.target, ErrNotSupported)
	case n < 1 || n > k.caps.MaxGroup:
		return nil, errGroup(n, k.caps.MaxGroup)
	}
	f := k.kin.family
	if err := f.begin(n, c.limits.MaxStreams); err != nil {
		return nil, fmt.Errorf("sluice: open at %s: %w", c.target, err)
	}
	ss := make([]*Stream, 0, n)
	for i := range n {
		s, err := c.openChild(ctx, k, opts, each, i)
		if err != nil {
			f.unbegun(n - i)
			c.changed()
			for _, s := range ss {
				s.Abort(CodeCancelled, "opened with a stream that could not be")
			}
			return nil, err
		}
		f.begun(s.c.conn)
		ss = append(ss, s)
	}
	return ss, nil
}

func (c *Client) openChild(ctx context.Context, k *Conn, opts *OpenOptions, each []StreamOptions, i int) (*Stream, error) {
	child, err := c.dialDedicated(ctx, k)
	if err != nil {
		return nil, err
	}
	if each != nil {
		each = each[i : i+1]
	}
	ss, err := child.open(ctx, "", opts, 1, each)
	if err != nil {
		_ = child.Close()
		return nil, err
	}
	return ss[0], nil
}
