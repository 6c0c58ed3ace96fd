package programs

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A wire is a protocol under test. A further one is a line in wires.
type wire struct {
	name  string
	proto func() frame.Protocol // a value for one server, or for its clients
}

var wires = []wire{
	{"native", func() frame.Protocol { return native.Protocol{} }},
	{"brpc", func() frame.Protocol { return strm.Protocol{} }},
	{"seastar", func() frame.Protocol { return &seastar.Protocol{} }},
	{"grpc", func() frame.Protocol { return triple.Protocol{} }},
}

// The methods that programs call. Handlers are registered by these on every wire.
const (
	talks   = "talk"  // a stream, or a call that names one
	calls   = "call"  // a message each way
	groups  = "group" // several streams by one request
	nothing = "none"  // nobody handles it
)

// method is what a method is called over w.
func (w *wire) method(name string) string {
	if w.proto().Caps().Verbs {
		return kernel.Verb(map[string]uint64{talks: 1, calls: 2, groups: 3, nothing: 4}[name])
	}
	return "random.Programs/" + name
}

// open opens a stream whose first request says its key. Where streams are opened without a
// word, a call says the key of the stream that it names.
func (r *run) open(ctx context.Context, c kernel.Caller, key uint64, o kernel.StreamOptions) (*kernel.Stream, error) {
	req := binary.LittleEndian.AppendUint64(nil, key)
	if !r.caps.StreamsByID {
		if n := r.requestLen(key); n > 0 {
			req = append(req, make([]byte, n)...)
		}
		m := pool.Copy(req)
		s, err := c.Open(ctx, r.wire.method(talks), &kernel.OpenOptions{Request: m, Stream: o})
		if err != nil {
			m.Release()
		}
		return s, err
	}
	s, err := c.Open(ctx, "", &kernel.OpenOptions{Stream: o})
	if err != nil {
		return nil, err
	}
	on, id := s.CallRef()
	m := pool.Copy(binary.LittleEndian.AppendUint64(req, id))
	r.spawn(func() {
		reply, err := on.Call(ctx, r.wire.method(talks), m, nil)
		if err != nil {
			m.Release()
			r.talk(key).down.stopped.Store(true)
			s.Abort(status.Cancelled, "nobody has taken the stream")
		}
		r.judge("the call that names a stream", err)
		reply.Release()
	})
	return s, nil
}

// opened is the stream that a handler of talks has been given, and its key.
func (r *run) opened(ctx context.Context, s *kernel.Stream) (child *kernel.Stream, key uint64, err error) {
	m, err := s.Request(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer m.Release()
	if m.Len() < 8 {
		return nil, 0, errors.New("a request without a key")
	}
	key = binary.LittleEndian.Uint64(m.Bytes())
	if !r.caps.StreamsByID {
		return s, key, nil
	}
	child, err = s.Conn().TakeStream(ctx, binary.LittleEndian.Uint64(m.Bytes()[8:]))
	return child, key, err
}

// A transport is where a server listens, and how clients come there.
type transport struct {
	ln     net.Listener
	target string
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	tls    bool
}

func inMemory() transport {
	ln := kerneltest.Listen()
	return transport{ln: ln, target: kerneltest.Target, dial: ln.Dial}
}

// overSockets is one of the transports that there are of TCP, all of whose connections can
// be on event loops or not.
func overSockets(t testing.TB, n uint64) transport {
	ln := testkit.Listen(t)
	tr := transport{ln: ln, target: ln.Addr().String()}
	switch n % 4 {
	case 0:
		tr.tls = true
	case 1:
		tr.ln = testkit.PlainListener{Listener: ln}
		tr.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return testkit.PlainConn{Conn: c}, nil
		}
	}
	return tr
}
