// Package gnetpeer is a bare gnet server that echoes and checks in its event
// loop, and the plain TCP client of package raw.
package gnetpeer

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
)

const (
	prefix    = 4
	endMark   = 1<<32 - 1
	startWait = 5 * time.Second
)

type gnetPeer struct{}

// New returns the gnet server with the plain TCP client.
func New() peer.Peer { return gnetPeer{} }

func (gnetPeer) Name() string { return "gnet" }

func (gnetPeer) Dial(_ context.Context, addr string, o peer.Options) (peer.Conn, error) {
	return raw.NewConn(addr, true, o), nil
}

// Serve starts an engine. gnet does not tell which port it got for port 0, so
// a free one is looked for first.
func (gnetPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{addr: ln.Addr().String(), o: o, booted: make(chan gnet.Engine, 1), ended: make(chan error, 1)}
	if err := ln.Close(); err != nil {
		return nil, err
	}
	go func() { // ends with Stop; Close waits
		s.ended <- gnet.Run(s, "tcp://"+s.addr, gnet.WithMulticore(true), gnet.WithReuseAddr(true),
			gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(quiet{}))
	}()
	select {
	case s.engine = <-s.booted:
		return s, nil
	case err := <-s.ended:
		return nil, errors.Join(errors.New("gnet: did not start"), err)
	}
}

type server struct {
	gnet.BuiltinEventEngine
	addr   string
	o      peer.Options
	engine gnet.Engine
	booted chan gnet.Engine
	ended  chan error
	once   sync.Once
}

func (s *server) Addr() string { return s.addr }

func (s *server) Close() error {
	var err error
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startWait)
		defer cancel()
		err = errors.Join(s.engine.Stop(ctx), <-s.ended)
	})
	return err
}

func (s *server) OnBoot(e gnet.Engine) gnet.Action {
	s.booted <- e
	return gnet.None
}

func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(new(state))
	s.count(1)
	return nil, gnet.None
}

func (s *server) OnClose(gnet.Conn, error) gnet.Action {
	s.count(-1)
	return gnet.None
}

func (s *server) count(n int64) {
	if s.o.Serving != nil {
		s.o.Serving.Add(n)
	}
}

// OnTraffic takes everything there is: what is left in gnet's own buffer is
// copied at every event.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	p, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	st := c.Context().(*state)
	if st.mode == 0 && len(p) > 0 {
		st.mode, p = peer.Mode(p[0]), p[1:]
	}
	if st.mode == peer.Echo {
		return st.echo(c, p)
	}
	return st.consume(c, p)
}

// state is one connection's. It belongs to the connection's loop.
type state struct {
	mode    peer.Mode
	part    []byte // of the message that has not arrived whole
	checker peer.Checker
}

// echo sends the whole messages in p back in one write. The mark that ends a
// stream looks the same in both directions.
func (st *state) echo(c gnet.Conn, p []byte) gnet.Action {
	var err error
	p, ok := st.complete(p, func(frame []byte) { _, err = c.Write(frame) })
	if !ok {
		return gnet.None
	}
	whole, rest := split(p)
	if err == nil && len(whole) > 0 {
		_, err = c.Write(whole)
	}
	if err != nil {
		return gnet.Close
	}
	st.keep(rest)
	return gnet.None
}

func (st *state) consume(c gnet.Conn, p []byte) gnet.Action {
	p, ok := st.complete(p, st.check)
	if !ok {
		return gnet.None
	}
	for len(p) >= prefix {
		n := binary.LittleEndian.Uint32(p)
		if n == endMark {
			return st.finish(c)
		}
		if uint32(len(p)-prefix) < n {
			break
		}
		st.check(p[:prefix+n])
		p = p[prefix+n:]
	}
	st.keep(p)
	return gnet.None
}

func (st *state) check(frame []byte) { st.checker.Check(frame[prefix:]) }

// finish answers the client's end with the summary and ours.
func (st *state) finish(c gnet.Conn) gnet.Action {
	var out []byte
	if st.mode == peer.Discard {
		out = binary.LittleEndian.AppendUint32(out, peer.SummarySize)
		out = append(out, make([]byte, peer.SummarySize)...)
		sum := st.checker.Summary()
		sum.Put(out[prefix:])
	}
	out = binary.LittleEndian.AppendUint32(out, endMark)
	if _, err := c.Write(out); err != nil {
		return gnet.Close
	}
	return gnet.None
}

// split returns the whole messages at the start of p, and the rest.
func split(p []byte) (whole, rest []byte) {
	at := 0
	for len(p)-at >= prefix {
		n := binary.LittleEndian.Uint32(p[at:])
		if n == endMark {
			n = 0
		}
		if uint32(len(p)-at-prefix) < n {
			break
		}
		at += prefix + int(n)
	}
	return p[:at], p[at:]
}

// keep stores the start of a message. Once its length is known the buffer
// has room for all of it.
func (st *state) keep(p []byte) {
	st.part = append(st.part[:0], p...)
	if len(p) >= prefix {
		st.part = slices.Grow(st.part, prefix+int(binary.LittleEndian.Uint32(p))-len(p))
	}
}

// complete adds p to the message kept before and passes that to f, with its
// prefix, if it is whole then. It returns what of p is left, and false if the
// message still lacks some.
func (st *state) complete(p []byte, f func(frame []byte)) (rest []byte, ok bool) {
	if len(st.part) == 0 {
		return p, true
	}
	if len(st.part) < prefix {
		p = append(st.part, p...)
		st.part = nil
		return p, true
	}
	size := prefix + int(binary.LittleEndian.Uint32(st.part))
	n := min(size-len(st.part), len(p))
	st.part = append(st.part, p[:n]...)
	if len(st.part) < size {
		return nil, false
	}
	f(st.part)
	st.part = st.part[:0]
	return p[n:], true
}

// quiet drops gnet's log, which goes to standard output otherwise.
type quiet struct{}

var _ logging.Logger = quiet{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}
