package pace

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// fineSleep returns a sleep for the calling goroutine that wakes up within some 30 us,
// where time.Sleep takes up to 1 ms on kernels with coarse timers. It is nanosleep on a
// thread of its own, with the least timer slack and, where that is allowed, the highest
// priority: if all CPUs are busy the pacer would wait for milliseconds. The sleeping
// thread keeps a P until the runtime notices, so GOMAXPROCS is raised by one until done.
func fineSleep() (sleep func(time.Duration), done func()) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)          // without it sleeps are coarser
	first := unix.Setpriority(unix.PRIO_PROCESS, 0, -20) == nil // of this thread alone
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	sleep = func(d time.Duration) {
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // cut short by a signal: the caller looks at the clock
	}
	done = func() {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - 1)
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
		if first {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0) // going down is always allowed
		}
		runtime.UnlockOSThread()
	}
	return sleep, done
}
