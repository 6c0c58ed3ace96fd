// Package handover lets one server follow another on the same socket: no client is refused in
// between.
package handover

import (
	"fmt"
	"net"
	"os"
)

// Again returns another listener of the socket that ln listens on. The socket stays open until
// both are closed; what waits to be accepted goes to either.
func Again(ln net.Listener) (net.Listener, error) {
	l, ok := ln.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a %T can't be handed over", ln)
	}
	f, err := l.File() // a duplicate
	if err != nil {
		return nil, err
	}
	defer f.Close()
	next, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	// The socket's file goes with the last listener.
	if before, ok := ln.(*net.UnixListener); ok {
		before.SetUnlinkOnClose(false)
		next.(*net.UnixListener).SetUnlinkOnClose(true)
	}
	return next, nil
}
