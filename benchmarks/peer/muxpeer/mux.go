// Package muxpeer drives the stream multiplexers yamux and smux, whose users
// frame messages themselves: plain with one Write per message, and "+b" with
// a buffer that is flushed before a receive that has to wait.
package muxpeer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/hashicorp/yamux"
	"github.com/xtaci/smux"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/framed"
	"github.com/sluicerpc/sluice/benchmarks/peer/internal/listen"
)

// A session is what the adapters need of a library's.
type session interface {
	open() (substream, error)
	accept() (substream, error)
	Close() error
}

// A substream is one of a session's streams.
type substream struct {
	io.ReadWriteCloser
	halfClose, close func() error // halfClose is nil if there is none
}

type mux struct {
	name   string
	batch  bool
	buffer int // of each stream
	start  func(nc net.Conn, client bool) (session, error)
}

// Yamux returns yamux with its defaults. It waits for the end of each write, so that buffers as
// large as its window of 256 KiB are fastest, by a third.
func Yamux(batch bool) peer.Peer { return mux{named("yamux", batch), batch, 256 << 10, startYamux} }

// Smux returns smux with version 2 of its protocol, which has windows for
// streams, and its defaults otherwise.
func Smux(batch bool) peer.Peer { return mux{named("smux", batch), batch, framed.Buffer, startSmux} }

func named(name string, batch bool) string {
	if batch {
		return name + "+b"
	}
	return name
}

type yamuxSession struct{ *yamux.Session }

func startYamux(nc net.Conn, client bool) (session, error) {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	f := yamux.Server
	if client {
		f = yamux.Client
	}
	s, err := f(nc, c)
	return yamuxSession{s}, err
}

// yamuxStream: Close ends our half, and the stream once both have.
func yamuxStream(s *yamux.Stream, err error) (substream, error) {
	if err != nil {
		return substream{}, err
	}
	return substream{s, s.Close, s.Close}, nil
}

func (s yamuxSession) open() (substream, error)   { return yamuxStream(s.OpenStream()) }
func (s yamuxSession) accept() (substream, error) { return yamuxStream(s.AcceptStream()) }

type smuxSession struct{ *smux.Session }

func startSmux(nc net.Conn, client bool) (session, error) {
	c := smux.DefaultConfig()
	c.Version = 2
	f := smux.Server
	if client {
		f = smux.Client
	}
	s, err := f(nc, c)
	return smuxSession{s}, err
}

// smuxStream has no half-close: a smux stream whose peer called CloseWrite can't
// be written to any more.
func smuxStream(s *smux.Stream, err error) (substream, error) {
	if err != nil {
		return substream{}, err
	}
	return substream{s, nil, s.Close}, nil
}

func (s smuxSession) open() (substream, error)   { return smuxStream(s.OpenStream()) }
func (s smuxSession) accept() (substream, error) { return smuxStream(s.AcceptStream()) }

func (m mux) Name() string { return m.name }

func (m mux) Serve(addr string, o peer.Options) (peer.Server, error) {
	o.Duplex = false
	return listen.Serve(addr, func(nc net.Conn) {
		s, err := m.start(nc, false)
		if err != nil {
			return
		}
		var streams sync.WaitGroup
		for {
			sub, err := s.accept()
			if err != nil {
				break
			}
			streams.Go(func() { m.serve(sub, o) }) // ends with the session at the latest
		}
		_ = s.Close()
		streams.Wait()
	})
}

func (m mux) stream(sub substream, o peer.Options) *framed.Stream {
	s := framed.New(sub, m.batch, m.buffer, o)
	if sub.halfClose != nil {
		s.HalfClose(sub.halfClose, sub.close)
	}
	return s
}

func (m mux) serve(sub substream, o peer.Options) {
	s := m.stream(sub, o)
	_ = s.Serve(o)
	_ = s.Close()
}

func (m mux) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s, err := m.start(nc, true)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return &conn{m, s, o}, nil
}

type conn struct {
	mux mux
	session
	o peer.Options
}

func (c *conn) Open(_ context.Context, m peer.Mode) (peer.Stream, error) {
	sub, err := c.open()
	if err != nil {
		return nil, err
	}
	s := c.mux.stream(sub, c.o)
	return s, s.Open(m)
}
