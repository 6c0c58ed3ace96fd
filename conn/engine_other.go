//go:build !linux

package conn

import (
	"errors"
	"net"
)

// Engine stands for the event loops, which there are on Linux only.
type Engine struct{}

// Acquire returns an engine without loops.
func Acquire() (*Engine, error) { return &Engine{}, nil }

// Release does nothing.
func (e *Engine) Release() {}

// Serve always fails: see Loops.
func (e *Engine) Serve(net.Conn, Config, []byte, func(*Conn)) (*Conn, error) {
	return nil, errors.ErrUnsupported
}

// LoopInfos returns nil: there are no loops.
func LoopInfos() []LoopInfo { return nil }

// Loops reports that no connection can be served by an event loop.
func Loops(net.Conn) bool { return false }
