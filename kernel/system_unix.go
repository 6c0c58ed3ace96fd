//go:build unix

package kernel

import (
	"errors"
	"syscall"
)

// The part of RLIMIT_NOFILE, in percent, that connections may take by default,
// and where the program names their number itself. A connection on an event loop
// takes two descriptors.
const (
	defaultShare = 35
	namedShare   = 45
)

// descriptorBound is how many connections the descriptors allow; most if that
// can't be told.
func descriptorBound(most int, named bool) int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || most == Unlimited {
		return most
	}
	share := uint64(defaultShare)
	if named {
		share = namedShare
	}
	return max(int(min(uint64(r.Cur), 1<<30)*share/100), 1) // signed on some systems
}

// temporary tells whether accepting can go on after err.
func temporary(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
