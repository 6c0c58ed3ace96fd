//go:build unix

package kernel

import (
	"errors"
	"syscall"
)

// The largest share of RLIMIT_NOFILE, in percent, that the number of connections may be:
// by default, and if the program sets Limits.MaxConns. A connection on an event loop takes
// two descriptors.
const (
	defaultShare = 35
	namedShare   = 45
)

// descriptorBound is how many connections RLIMIT_NOFILE allows, or most if that is not
// known. named says that the program has set most.
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

// temporary reports whether accept may succeed later after err.
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
