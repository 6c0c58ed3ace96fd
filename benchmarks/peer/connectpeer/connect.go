// Package connectpeer drives connect-go with the Connect protocol over HTTP/2
// without TLS, with messages of raw bytes and no compression.
package connectpeer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

type connectPeer struct{}

// New returns connect-go.
func New() peer.Peer { return connectPeer{} }

func (connectPeer) Name() string { return "connect" }

type message struct{ p []byte }

// codec copies: connect puts what Marshal returns into its own pool later, and
// takes back what it gives Unmarshal.
type codec struct{}

func (codec) Name() string { return "raw" }

func (codec) Marshal(v any) ([]byte, error) { return append([]byte(nil), v.(*message).p...), nil }

// MarshalAppend is what connect prefers to Marshal.
func (codec) MarshalAppend(buf []byte, v any) ([]byte, error) {
	return append(buf, v.(*message).p...), nil
}

func (codec) Unmarshal(p []byte, v any) error {
	m := v.(*message)
	m.p = append(m.p[:0], p...)
	return nil
}

// connectStream is what a client's and a server's stream have in common.
type connectStream interface {
	Send(*message) error
	Receive() (*message, error)
}

type stream struct {
	connectStream
	out    message
	ended  bool // connect tells the end only once
	end    func() error
	cancel func() error
}

func (s *stream) Buf(n int) []byte {
	if cap(s.out.p) < n {
		s.out.p = make([]byte, n)
	}
	return s.out.p[:n]
}

func (s *stream) Send(p []byte) error {
	s.out.p = p
	return s.connectStream.Send(&s.out)
}

func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	m, err := s.Receive()
	if errors.Is(err, io.EOF) {
		s.ended = true
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	return m.p, nil
}

func (s *stream) CloseSend() error { return s.end() }

func (s *stream) Close() error { return s.cancel() }

func nothing() error { return nil }

func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

type server struct {
	http *http.Server
	ln   net.Listener
	wg   sync.WaitGroup
}

func (connectPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, m := range []peer.Mode{peer.Echo, peer.Discard, peer.Park} {
		mux.Handle(path(m), connect.NewBidiStreamHandler(path(m),
			func(_ context.Context, st *connect.BidiStream[message, message]) error {
				return o.Handle(m, &stream{connectStream: st, end: nothing, cancel: nothing})
			}, connect.WithCodec(codec{}), connect.WithCompression("gzip", nil, nil)))
	}
	s := &server{ln: ln, http: &http.Server{
		Handler: mux, Protocols: protocols(), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: o.Streams},
	}}
	s.wg.Go(func() { _ = s.http.Serve(ln) }) // ends with Close, which waits
	return s, nil
}

func path(m peer.Mode) string { return "/Bench/" + string(m) }

func (s *server) Addr() string { return s.ln.Addr().String() }

func (s *server) Close() error {
	err := s.http.Close()
	s.wg.Wait()
	return err
}

type conn struct {
	transport *http.Transport
	clients   map[peer.Mode]*connect.Client[message, message]
}

// Dial returns a client with a transport, and so a connection, of its own. It
// is dialed with the first stream.
func (connectPeer) Dial(_ context.Context, addr string, _ peer.Options) (peer.Conn, error) {
	c := &conn{
		transport: &http.Transport{Protocols: protocols()},
		clients:   make(map[peer.Mode]*connect.Client[message, message]),
	}
	for _, m := range []peer.Mode{peer.Echo, peer.Discard, peer.Park} {
		c.clients[m] = connect.NewClient[message, message](&http.Client{Transport: c.transport},
			"http://"+addr+path(m), connect.WithCodec(codec{}), connect.WithAcceptCompression("gzip", nil, nil))
	}
	return c, nil
}

// Open starts the request of a stream that nothing is sent on; otherwise the
// first message does that.
func (c *conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	st := c.clients[m].CallBidiStream(ctx)
	s := &stream{connectStream: st, end: st.CloseRequest}
	s.cancel = func() error {
		cancel()
		return nil
	}
	if m == peer.Park {
		if err := st.Send(nil); err != nil {
			cancel()
			return nil, err
		}
	}
	return s, nil
}

func (c *conn) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}
