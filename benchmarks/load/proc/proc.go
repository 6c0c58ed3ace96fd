// Package proc reads this process's resource usage, and fetches that of a server's
// process from its admin endpoint.
package proc

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Stats is a reading. Totals count from the start of the process.
type Stats struct {
	At         time.Time `json:"at"`
	UserCPU    float64   `json:"user_cpu_s"`
	SystemCPU  float64   `json:"system_cpu_s"`
	RSS        uint64    `json:"rss_bytes"`      // 0 where it is unknown
	PeakRSS    uint64    `json:"peak_rss_bytes"` // 0 where it is unknown
	LiveBytes  uint64    `json:"live_bytes"`     // heap objects and stacks
	Allocs     uint64    `json:"allocs"`
	AllocBytes uint64    `json:"alloc_bytes"`
	GCs        uint64    `json:"gcs"`
	GCPause    float64   `json:"gc_pause_s"`
	GCCPU      float64   `json:"gc_cpu_s"`
	Goroutines uint64    `json:"goroutines"`
	Switches   uint64    `json:"context_switches"`
	// ReadCalls and WriteCalls are the read and write system calls that the
	// kernel's accounting sees (not sendmsg and recvmsg); 0 where it has none.
	ReadCalls  uint64 `json:"read_calls"`
	WriteCalls uint64 `json:"write_calls"`
	// Peer is the library that a server serves with.
	Peer string `json:"peer,omitempty"`
	// MaxMessage is the longest message that a server takes, 0 if it is unknown.
	MaxMessage int `json:"max_message,omitempty"`
	// Streams is how many streams a server is serving.
	Streams int64 `json:"streams"`
	// Library is the figures of the library under test.
	Library map[string]float64 `json:"library,omitempty"`
}

// CPU returns user and system time together, in seconds.
func (s Stats) CPU() float64 { return s.UserCPU + s.SystemCPU }

var names = []string{
	"/gc/heap/allocs:objects",
	"/gc/heap/allocs:bytes",
	"/gc/cycles/total:gc-cycles",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/stacks:bytes",
	"/cpu/classes/gc/total:cpu-seconds",
	"/sched/goroutines:goroutines",
}

// Read takes a reading of this process.
func Read() Stats {
	samples := make([]metrics.Sample, len(names))
	for i := range samples {
		samples[i].Name = names[i]
	}
	metrics.Read(samples)
	n := func(i int) uint64 { return samples[i].Value.Uint64() }
	var gc debug.GCStats
	debug.ReadGCStats(&gc)
	s := Stats{
		At:         time.Now(),
		Allocs:     n(0),
		AllocBytes: n(1),
		GCs:        n(2),
		LiveBytes:  n(3) + n(4),
		GCCPU:      samples[5].Value.Float64(),
		GCPause:    gc.PauseTotal.Seconds(),
		Goroutines: n(6),
	}
	readSystem(&s)
	return s
}

// Collect frees memory that is not in use, so that LiveBytes of the next Read is what is.
// A sync.Pool needs two collections to be emptied.
func Collect() {
	runtime.GC()
	runtime.GC()
}
