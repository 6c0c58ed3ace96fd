package conn

import (
	"slices"
	"sync/atomic"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// What is here calls the methods of a session where others wait: those that others than its
// reader and its writer call, and those that are called while a stream's lock is held. Where
// the session is of the program's (Config.Foreign), one that panics, ends its goroutine or
// does not return harms its own connection alone.

// fillForeign has a stream encode what is due, by a session of the program's.
func (c *Conn) fillForeign(p *Port, most int, data bool) (used int, again bool) {
	o := &c.out
	d := &deferring{Session: o.sess}
	used, again = p.s.Fill(d, &o.o, most, data)
	d.encode(&o.o)
	return used, again
}

// deferring is a session that is called when no lock is held: streams encode control frames
// under theirs.
type deferring struct {
	frame.Session
	due []frame.Frame
}

// Control implements frame.Session. f is valid during the call.
func (d *deferring) Control(_ *frame.Out, f *frame.Frame) {
	d.due = append(d.due, *f)
	last := &d.due[len(d.due)-1]
	last.Grants = slices.Clone(f.Grants)
}

// Messages implements frame.Session.
func (d *deferring) Messages(o *frame.Out, id uint64, run pool.Queue) {
	d.encode(o)
	d.Session.Messages(o, id, run)
}

// Fragment implements frame.Session.
func (d *deferring) Fragment(o *frame.Out, id uint64, m pool.Message, off, n int) {
	d.encode(o)
	d.Session.Fragment(o, id, m, off, n)
}

func (d *deferring) encode(o *frame.Out) {
	for i := range d.due {
		d.Session.Control(o, &d.due[i])
	}
	d.due = d.due[:0]
}

// aside calls f, in a goroutine of its own if the session is of the program's, and waits
// for it.
func (c *Conn) aside(method string, f func()) (err error) {
	if !c.cfg.Foreign {
		f()
		return nil
	}
	done := make(chan error, 1)
	go func() {
		returned := false
		defer func() {
			if !returned {
				done <- c.fault("frame.Session."+method, recover())
			}
		}()
		f()
		returned = true
		done <- nil
	}()
	return <-done
}

func (c *Conn) pack(m pool.Message, by pool.Compression) pool.Message {
	p := m
	if err := c.aside("Pack", func() { p = c.sess.Pack(m, by) }); err != nil {
		return m
	}
	return p
}

func (c *Conn) unpack(id uint64, m pool.Message, most int) (p pool.Message, err error) {
	if e := c.aside("Unpack", func() { p, err = c.sess.Unpack(id, m, most) }); e != nil {
		return pool.Message{}, e
	}
	return p, err
}

// sessionUse is what Closed of a session waits for: its reader.
type sessionUse struct{ bits atomic.Uint32 }

const (
	sessionRead = 1 << iota // the reader is in it
	sessionOver             // and the connection has ended
)

// enterSession is called by the reader before it uses the session. It returns false when the
// connection has ended.
func (c *Conn) enterSession() bool { return c.use.bits.CompareAndSwap(0, sessionRead) }

// leaveSession follows it.
func (c *Conn) leaveSession() {
	if c.use.bits.And(^uint32(sessionRead))&sessionOver != 0 {
		c.closeSession()
	}
}

// endSession has the session closed: now, or when the reader leaves it.
func (c *Conn) endSession() {
	if c.use.bits.Or(sessionOver) == 0 {
		c.closeSession()
	}
}

// closeSession tells the session that the connection has ended. It does not wait for one of
// the program's: its caller may be what runs all timers.
func (c *Conn) closeSession() {
	if c.cfg.Foreign {
		go func() { _ = c.aside("Closed", c.sess.Closed) }()
		return
	}
	c.sess.Closed()
}
