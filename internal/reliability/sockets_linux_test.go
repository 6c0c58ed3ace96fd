package reliability

import "syscall"

// tinyBuffers asks for buffers of a few KiB; with smaller ones it is TCP that waits for its timers.
func tinyBuffers(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		for _, o := range []int{syscall.SO_SNDBUF, syscall.SO_RCVBUF} {
			if e := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, o, 4096); e != nil {
				err = e
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}
