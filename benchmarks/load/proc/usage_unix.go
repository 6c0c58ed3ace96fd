//go:build unix

package proc

import "golang.org/x/sys/unix"

func readUsage(s *Stats) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return
	}
	s.UserCPU = float64(u.Utime.Nano()) / 1e9
	s.SystemCPU = float64(u.Stime.Nano()) / 1e9
	s.Switches = uint64(u.Nvcsw) + uint64(u.Nivcsw)
}
