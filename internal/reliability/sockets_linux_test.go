package reliability

import "syscall"

// tinyBuffers asks for the smallest buffers that the system gives a socket.
func tinyBuffers(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		for _, o := range []int{syscall.SO_SNDBUF, syscall.SO_RCVBUF} {
			if e := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, o, 1); e != nil {
				err = e
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}
