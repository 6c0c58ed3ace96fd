// Package wspeer drives coder/websocket, one connection per stream.
package wspeer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// endText is the text message that ends a half: WebSocket has no half-close.
// Messages are binary.
var endText = []byte("end")

type wsPeer struct{}

// New returns coder/websocket with its defaults.
func New() peer.Peer { return wsPeer{} }

func (wsPeer) Name() string { return "ws" }

type server struct {
	http *http.Server
	ln   net.Listener
	o    peer.Options
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[*websocket.Conn]struct{} // http does not close upgraded connections
	closed bool
}

func (wsPeer) Serve(addr string, o peer.Options) (peer.Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &server{ln: ln, o: o, conns: make(map[*websocket.Conn]struct{})}
	s.http = &http.Server{Handler: s}
	s.wg.Go(func() { _ = s.http.Serve(ln) }) // ends with Close, which waits
	return s, nil
}

// ServeHTTP serves the stream whose mode is the path.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.Path) != 2 {
		http.NotFound(w, r)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	if !s.add(c) {
		return
	}
	defer s.remove(c)
	st := newStream(c, s.o)
	if s.o.Handle(peer.Mode(r.URL.Path[1]), st) == nil {
		_, _, _ = c.Reader(context.Background()) // the client closes first
	}
}

func (s *server) add(c *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[c] = struct{}{}
		s.wg.Add(1)
	}
	return !s.closed
}

func (s *server) remove(c *websocket.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.wg.Done()
}

func (s *server) Addr() string { return s.ln.Addr().String() }

func (s *server) Close() error {
	err := s.http.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.CloseNow()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (wsPeer) Dial(_ context.Context, addr string, o peer.Options) (peer.Conn, error) {
	return &conn{addr, o, &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if tc, ok := nc.(*net.TCPConn); ok {
		err = tc.SetLinger(0) // see package raw
	}
	return nc, err
}

type conn struct {
	addr string
	o    peer.Options
	http *http.Client
}

func (c *conn) Open(ctx context.Context, m peer.Mode) (peer.Stream, error) {
	ws, _, err := websocket.Dial(ctx, "ws://"+c.addr+"/"+string(m), &websocket.DialOptions{HTTPClient: c.http})
	if err != nil {
		return nil, err
	}
	return newStream(ws, c.o), nil
}

func (c *conn) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

type stream struct {
	ws      *websocket.Conn
	in, out []byte
	ended   bool
}

func newStream(ws *websocket.Conn, o peer.Options) *stream {
	ws.SetReadLimit(int64(max(o.MaxMessage, 4<<20)))
	return &stream{ws: ws}
}

func (s *stream) Buf(n int) []byte {
	if cap(s.out) < n {
		s.out = make([]byte, n)
	}
	return s.out[:n]
}

func (s *stream) Send(p []byte) error {
	return s.ws.Write(context.Background(), websocket.MessageBinary, p)
}

func (s *stream) Flush() error { return nil }

func (s *stream) Recv() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	kind, r, err := s.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	if kind == websocket.MessageText {
		s.ended = true
		return nil, io.EOF
	}
	s.in = s.in[:0]
	for {
		if len(s.in) == cap(s.in) {
			s.in = append(s.in, 0)[:len(s.in)]
		}
		n, err := r.Read(s.in[len(s.in):cap(s.in)])
		s.in = s.in[:len(s.in)+n]
		if errors.Is(err, io.EOF) {
			return s.in, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *stream) CloseSend() error {
	return s.ws.Write(context.Background(), websocket.MessageText, endText)
}

func (s *stream) Close() error { return s.ws.CloseNow() }
