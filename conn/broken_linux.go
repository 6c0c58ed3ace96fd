package conn

import (
	"crypto/tls"
	"syscall"

	"golang.org/x/sys/unix"
)

// broken reports whether the socket, if there is one, has failed. Nothing else notices
// that the peer is gone while a slow application pauses the reader.
func (t *netConn) broken() (yes bool) {
	nc := t.nc
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = rc.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		yes = err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
	return yes
}
