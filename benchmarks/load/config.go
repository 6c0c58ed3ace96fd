// Package load runs workloads of streams against a server and reports what
// happened: how many messages, how late, at what cost to both processes, and
// whether each arrived once, in order and intact.
package load

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/load/pace"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A Workload is the shape of what a run does.
type Workload string

const (
	// Echo sends messages and gets each back.
	Echo Workload = "echo"
	// OneWay sends messages that the server checks and drops.
	OneWay Workload = "oneway"
	// Idle opens streams and leaves them alone.
	Idle Workload = "idle"
	// Churn opens a stream, gets one echo, closes it, and repeats that.
	Churn Workload = "churn"
	// Call makes unary calls, one at a time on each stream that stands for them.
	Call Workload = "call"
)

// A Config says what to run. The tags are its command line.
type Config struct {
	Workload Workload `help:"what each stream does: echo, oneway, idle, churn" group:"Shape"`

	Conns       int   `help:"connections" group:"Shape"`
	Streams     int   `help:"streams on each connection; in churn, how many are open at a time" group:"Shape"`
	Outstanding int   `help:"closed model: echoes each stream waits for" group:"Shape"`
	Size        Sizes `help:"message size: 64, 4KiB, uniform:64-4KiB, lognormal:1KiB,1.5,1MiB, mix:64=90,1MiB=10, @FILE of sizes and weights" group:"Shape"`
	BulkStreams int   `help:"streams on each connection that send bulk messages flat out, unmeasured, beside the others" group:"Shape"`
	BulkSize    Sizes `help:"size of bulk messages" group:"Shape"`

	Rate     Rate    `help:"open model: messages due a second over all streams; 0: closed model" group:"Model"`
	Stage    Stages  `help:"open model: stages instead of rate and duration: 10s@10k,30s@10k..50k" sep:"none" group:"Model"`
	Arrival  Arrival `help:"open model: constant, poisson or burst:N" group:"Model"`
	InFlight int     `help:"open model: messages each stream may have unanswered before further ones are deferred" group:"Model"`

	Duration time.Duration `help:"how long to measure" group:"Time"`
	Warmup   time.Duration `help:"how long to run before that" group:"Time"`
	Interval time.Duration `help:"one row of the time series" group:"Time"`
	Drain    time.Duration `help:"how long to wait at the end for messages in flight" group:"Time"`
	OpenRate Rate          `help:"streams opened a second before the run; 0: as fast as they open" group:"Time"`

	Sample      int           `help:"measure the latency of every n-th message (a power of two), 0: of none; with --rate, --stage or --find-knee of every one unless set" group:"Measuring"`
	MaxLateness time.Duration `help:"open model: the run is INVALID if the pacer's p99 lateness is above this; 0: 10% of the response p99, but not below 250us" group:"Measuring"`
	Checksum    bool          `help:"transport checksums, where there is a choice" group:"Transport" negatable:""`
	MaxMessage  int           `help:"longest message that either side takes, in bytes; 0: what the sizes need" group:"Transport"`

	// Payload makes the messages for a service that is not the harness's. Nil: they are stamped,
	// and checked when they come back.
	Payload *Payload `kong:"-" json:",omitzero"`

	At []Fault `help:"faults at times in the measured window: 5s=kill-conns:10%, 5s=stall-readers:2s, 5s=delay:30ms/5s" group:"Faults"`
}

// Rate is a number a second that reads "20k" and "1.5M" too.
type Rate float64

// UnmarshalText is pace.ParseRate.
func (r *Rate) UnmarshalText(text []byte) error {
	v, err := pace.ParseRate(string(text))
	*r = Rate(v)
	return err
}

// MarshalText writes the plain number.
func (r Rate) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%g", float64(r)), nil }

// Stages are the stages of an open model.
type Stages []pace.Stage

// UnmarshalText is pace.ParseStages; no text, no stages.
func (s *Stages) UnmarshalText(text []byte) (err error) {
	if *s = nil; len(text) > 0 {
		*s, err = pace.ParseStages(string(text))
	}
	return err
}

// MarshalText writes what UnmarshalText reads.
func (s Stages) MarshalText() (text []byte, err error) {
	for i, st := range s {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, st.String()...)
	}
	return text, nil
}

// Arrival is pace.Arrival as a flag.
type Arrival struct{ pace.Arrival }

// UnmarshalText is pace.ParseArrival.
func (a *Arrival) UnmarshalText(text []byte) (err error) {
	a.Arrival, err = pace.ParseArrival(string(text))
	return err
}

// MarshalText writes what UnmarshalText reads.
func (a Arrival) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Open reports whether messages are due on a schedule.
func (c *Config) Open() bool { return c.Rate > 0 || len(c.Stage) > 0 }

// Length returns how long the run measures.
func (c *Config) Length() time.Duration {
	if len(c.Stage) > 0 {
		return pace.Length(c.Stage)
	}
	return c.Duration
}

// stages returns the schedule of the whole run, warm-up included. It goes on at
// the end: the window begins, and ends, a little late.
func (c *Config) stages() []pace.Stage {
	st := slices.Clone(c.Stage)
	if len(st) == 0 {
		st = []pace.Stage{{For: c.Duration, From: float64(c.Rate), To: float64(c.Rate)}}
	}
	last := st[len(st)-1].To
	st = append(st, pace.Stage{For: time.Hour, From: last, To: last})
	if c.Warmup == 0 {
		return st
	}
	first := max(st[0].From, 1)
	return append([]pace.Stage{{For: c.Warmup, From: first, To: first}}, st...)
}

// PeerOptions returns the options that either side needs.
func (c *Config) PeerOptions() peer.Options {
	return peer.Options{
		MaxMessage: max(c.MaxMessage, c.longest(), 4<<20),
		Streams:    c.Streams + c.BulkStreams + 1,
		Conns:      c.Conns + 1,
		Checksum:   c.Checksum,
		Duplex:     c.duplex(),
	}
}

// longest returns the length of the longest message that is sent.
func (c *Config) longest() int {
	n := c.Size.Max()
	if c.Payload != nil {
		n = c.Payload.longest(n)
	}
	if c.BulkStreams > 0 {
		n = max(n, c.BulkSize.Max())
	}
	return n
}

// oneGoroutine is how many bytes a stream may have in flight if its sender and its
// receiver are one goroutine. If that blocked in Send, nothing would be received.
const oneGoroutine = 48 << 10

// duplex reports whether a stream's sender and receiver are two goroutines.
func (c *Config) duplex() bool {
	if c.Workload != Echo {
		return false
	}
	limit := c.Outstanding
	if c.Open() {
		limit = c.InFlight
	}
	if limit == 1 {
		return false
	}
	return c.Open() || limit*c.longest() > oneGoroutine
}

// CheckPeer returns an error if c needs something that p can't do.
func (c *Config) CheckPeer(p peer.Peer) error {
	if !peer.OverTCP(p) && c.needsRelay() {
		return fmt.Errorf("--at: kill-conns and delay go through a TCP relay, and %s runs over another protocol", p.Name())
	}
	return nil
}

// Check returns what is wrong with c, with the names of the command line's flags.
func (c *Config) Check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	switch c.Workload {
	case Echo, OneWay, Idle, Churn:
	case Call:
		bad(c.Payload == nil, "--workload call: want echo, oneway, idle or churn; load call makes calls")
	default:
		bad(true, "--workload %q: want echo, oneway, idle or churn", c.Workload)
	}
	bad(c.Conns < 1, "--conns must be 1 or more")
	bad(c.Streams < 1, "--streams must be 1 or more")
	bad(c.Outstanding < 1 || c.Outstanding > 1<<20, "--outstanding must be from 1 to 1048576")
	bad(c.InFlight < 1 || c.InFlight > 1<<20, "--in-flight must be from 1 to 1048576")
	bad(len(c.Size.table) == 0, "--size is missing")
	short := func(s *Sizes) bool { return len(s.table) > 0 && s.min() < peer.HeaderSize }
	bad(c.Payload == nil && short(&c.Size), "--size %v: a message needs %d bytes for its stream, sequence and checksum", c.Size, peer.HeaderSize)
	bad(c.BulkStreams > 0 && short(&c.BulkSize), "--bulk-size %v: a message needs %d bytes", c.BulkSize, peer.HeaderSize)
	bad(c.Workload == Call && c.Outstanding > 1, "a stream makes one call at a time: more --streams, and no --outstanding")
	bad(c.BulkStreams < 0, "--bulk-streams is below 0")
	bad(c.BulkStreams > 0 && len(c.BulkSize.table) == 0, "--bulk-size is missing")
	bad(c.BulkStreams > 0 && c.Workload != Echo, "--bulk-streams needs the echo workload")
	bad(len(c.Stage) > 0 && c.Rate > 0, "--stage already says the rate: leave --rate out")
	bad(c.Length() <= 0, "--duration must be above 0")
	bad(c.Warmup < 0 || c.Drain <= 0, "--warmup is below 0, or --drain not above it")
	bad(c.Interval < 10*time.Millisecond, "--interval must be 10ms or more")
	bad(c.MaxLateness < 0, "--max-lateness is below 0")
	bad(c.Sample < 0 || c.Sample&(c.Sample-1) != 0, "--sample must be 0 or a power of two")
	bad(c.Workload == Idle && c.Open(), "idle streams send nothing: no --rate and no --stage")
	bad(len(c.At) > 0 && (c.Workload == Idle || c.Workload == Churn || c.Workload == Call), "--at needs streams: the echo or the oneway workload")
	for _, f := range c.At {
		bad(f.At >= c.Length(), "--at %v is after the end of the run", f)
		bad(f.Kind == StallReaders && c.Workload == OneWay, "--at %v: one way the client does not receive", f)
	}
	return errors.Join(errs...)
}
