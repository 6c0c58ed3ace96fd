package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A link is a connection that is replaced when a fault has broken it.
type link struct {
	r     *run
	index int
	addr  string

	mu   sync.Mutex
	conn peer.Conn
	done bool

	reconnecting sync.Mutex // held while a lane dials again, for all of the link
}

func (k *link) dial(ctx context.Context) error {
	c, err := k.r.target.Peer.Dial(ctx, k.addr, k.r.opts)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", k.r.target.Peer.Name(), k.r.target.Addr, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done {
		_ = c.Close() // the run is over
		return errors.New("the run is over")
	}
	k.conn = c
	return nil
}

func (k *link) open(ctx context.Context, c peer.Conn, m peer.Mode) (peer.Stream, error) {
	if c == nil {
		return nil, errors.New("no connection")
	}
	s, err := c.Open(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("open on %s at %s: %w", k.r.target.Peer.Name(), k.r.target.Addr, err)
	}
	return s, nil
}

// reopen opens l's next stream, on a new connection if there is none.
func (k *link) reopen(l *lane) error {
	c, err := k.reconnect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(k.r.ctx) // the stream's: it outlives the opening
	t := time.AfterFunc(time.Second, func() {
		cancel()
		k.drop(c)
	})
	if err = l.open(ctx, c); !t.Stop() && err == nil {
		err = errors.New("the stream did not open in time")
	}
	if err != nil {
		cancel()
		k.drop(c)
		return err
	}
	l.cancel, l.reopened = cancel, true
	return nil
}

// reconnect returns the connection, a new one if there is none.
func (k *link) reconnect() (peer.Conn, error) {
	k.reconnecting.Lock()
	defer k.reconnecting.Unlock()
	if c := k.current(); c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(k.r.ctx, time.Second)
	defer cancel()
	if err := k.dial(ctx); err != nil {
		return nil, err
	}
	return k.current(), nil
}

func (k *link) current() peer.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn
}

// drop closes the connection c if it is still the link's.
func (k *link) drop(c peer.Conn) {
	k.mu.Lock()
	mine := c != nil && k.conn == c
	if mine {
		k.conn = nil
	}
	k.mu.Unlock()
	if mine {
		_ = c.Close() // it is broken
	}
}

func (k *link) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done = true; k.conn != nil {
		_ = k.conn.Close() // the figures are in
		k.conn = nil
	}
}
