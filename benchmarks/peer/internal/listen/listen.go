// Package listen is a TCP server's accept loop that can be closed.
package listen

import (
	"net"
	"sync"
)

// A Server accepts connections until Close.
type Server struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// Serve listens on addr and runs handle for every connection, in a goroutine
// of its own, and closes the connection when handle returns.
func Serve(addr string, handle func(net.Conn)) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{ln: ln, conns: make(map[net.Conn]struct{})}
	s.wg.Add(1)
	go s.accept(handle) // ends with the listener; Close waits
	return s, nil
}

func (s *Server) accept(handle func(net.Conn)) {
	defer s.wg.Done()
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		if !s.add(nc) {
			nc.Close()
			return
		}
		go func() { // ends when its connection does; Close closes that and waits
			defer s.remove(nc)
			handle(nc)
		}()
	}
}

func (s *Server) add(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[nc] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *Server) remove(nc net.Conn) {
	nc.Close()
	s.mu.Lock()
	delete(s.conns, nc)
	s.mu.Unlock()
	s.wg.Done()
}

// Addr returns the address that clients dial.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Close ends every connection and waits for their handlers.
func (s *Server) Close() error {
	err := s.ln.Close()
	s.mu.Lock()
	s.closed = true
	for nc := range s.conns {
		nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}
