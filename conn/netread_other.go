//go:build !linux

package conn

import "net"

func newSocketReader(net.Conn) (source, bool) { return nil, false }
