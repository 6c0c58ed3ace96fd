package workload

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// A Sample is what a process has used so far.
type Sample struct {
	User     time.Duration `json:"user"`
	System   time.Duration `json:"system"`
	Allocs   uint64        `json:"allocs"`   // objects
	Switches int64         `json:"switches"` // of context, voluntary or not
	RSS      int64         `json:"rss"`
	Memory   int64         `json:"memory"`  // live heap and stacks, bytes; exact only in a settled sample
	Serving  int64         `json:"serving"` // streams, on the server
}

// Take samples this process. A settled sample collects garbage before, so
// that Memory and RSS hold only what is in use.
func Take(settled bool) (Sample, error) {
	if settled {
		runtime.GC()
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return Sample{}, fmt.Errorf("getrusage: %w", err)
	}
	return Sample{
		User:     time.Duration(u.Utime.Nano()),
		System:   time.Duration(u.Stime.Nano()),
		Allocs:   m.Mallocs,
		Switches: int64(u.Nvcsw) + int64(u.Nivcsw),
		RSS:      rss(&u),
		Memory:   int64(m.HeapAlloc + m.StackInuse),
	}, nil
}

// rss returns the current resident set, or its maximum where only that is known.
func rss(u *syscall.Rusage) int64 {
	var size, resident int64
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		if _, err = fmt.Fscan(bytes.NewReader(statm), &size, &resident); err == nil {
			return resident * int64(os.Getpagesize())
		}
	}
	return int64(u.Maxrss) << 10
}

// A Cost is what one side spent on the measured part of a run.
type Cost struct {
	User     float64 `json:"user"` // seconds
	System   float64 `json:"system"`
	Allocs   uint64  `json:"allocs"`
	Switches int64   `json:"switches"`
	RSS      int64   `json:"rss"`                 // at the end
	Each     float64 `json:"bytes_each,omitzero"` // memory per stream or connection, where that is measured
	EachRSS  float64 `json:"rss_each,omitzero"`   // the same by the system's count
}

func cost(from, to Sample) Cost {
	return Cost{
		User:     (to.User - from.User).Seconds(),
		System:   (to.System - from.System).Seconds(),
		Allocs:   to.Allocs - from.Allocs,
		Switches: to.Switches - from.Switches,
		RSS:      to.RSS,
	}
}

// addMemory sets the memory per stream from settled samples before and after n
// of them were opened.
func (c *Cost) addMemory(from, to Sample, n int) {
	c.Each = float64(to.Memory-from.Memory) / float64(n)
	c.EachRSS = float64(to.RSS-from.RSS) / float64(n)
}
