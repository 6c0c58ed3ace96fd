// Package workload drives a peer through one of the workloads of the
// comparison and reports what that cost both sides.
//
// Every message is stamped and checked (see peer.Checker); where latency is
// not measured there is no clock read and no allocation per message.
package workload

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A Workload is one row of the comparison.
type Workload struct {
	Name  string
	About string
	Unit  string // what is counted: "echo", "message", "ping", "stream"

	Conns       int           // connections
	Streams     int           // streams in all; in W7 how many are open at a time
	Outstanding int           // messages in flight per stream
	Size        int           // bytes of a message
	Bulk        int           // bytes of a message of the bulk stream
	Period      time.Duration // between the messages of a paced stream
	RTT         time.Duration // of the path, if it is a long one: Config.Addr is at its near end

	run func(*run) error
}

// Options returns the settings that both sides of a peer need for w.
func (w Workload) Options() peer.Options {
	perConn := (w.Streams + w.Conns - 1) / w.Conns
	return peer.Options{
		MaxMessage: max(4<<20, w.Size, w.Bulk),
		Streams:    max(1000, perConn+1),
		Conns:      max(1024, w.Conns+1),
	}
}

// Capped returns w with at most n streams and connections, and milliseconds of round trip, for a quick check
// that it works at all.
func (w Workload) Capped(n int) Workload {
	w.Streams, w.Conns = min(w.Streams, n), min(w.Conns, n)
	w.RTT = min(w.RTT, time.Duration(n)*time.Millisecond)
	return w
}

// All returns the workloads in the order of the tables.
func All() []Workload {
	return []Workload{
		{Name: "w1", About: "ping-pong, 64 B, 1 stream", Unit: "echo",
			Conns: 1, Streams: 1, Outstanding: 1, Size: 64, run: (*run).fan},
		{Name: "w2", About: "echo, 64 B, 64 streams with 64 messages outstanding each, 1 connection", Unit: "echo",
			Conns: 1, Streams: 64, Outstanding: 64, Size: 64, run: (*run).fan},
		{Name: "w2-4conns", About: "as w2, on 4 connections", Unit: "echo",
			Conns: 4, Streams: 64, Outstanding: 64, Size: 64, run: (*run).fan},
		{Name: "w2-16conns", About: "as w2, on 16 connections", Unit: "echo",
			Conns: 16, Streams: 64, Outstanding: 64, Size: 64, run: (*run).fan},
		{Name: "w3-64", About: "one way, 64 B, 1 stream", Unit: "message",
			Conns: 1, Streams: 1, Size: 64, run: (*run).firehose},
		{Name: "w3-1k", About: "one way, 1 KiB, 1 stream", Unit: "message",
			Conns: 1, Streams: 1, Size: 1 << 10, run: (*run).firehose},
		{Name: "w4-64k", About: "one way, 64 KiB, 1 stream", Unit: "message",
			Conns: 1, Streams: 1, Size: 64 << 10, run: (*run).firehose},
		{Name: "w4-1m", About: "one way, 1 MiB, 1 stream", Unit: "message",
			Conns: 1, Streams: 1, Size: 1 << 20, run: (*run).firehose},
		{Name: "w5", About: "64 B ping-pong each 0.5 ms beside messages of 16 MiB flat out, 1 connection", Unit: "ping",
			Conns: 1, Streams: 2, Outstanding: 1, Size: 64, Bulk: 16 << 20, Period: 500 * time.Microsecond, run: (*run).headOfLine},
		{Name: "w6-10k", About: "10,000 idle streams, 16 connections", Unit: "stream",
			Conns: 16, Streams: 10_000, run: (*run).idle},
		{Name: "w6-100k", About: "100,000 idle streams, 16 connections", Unit: "stream",
			Conns: 16, Streams: 100_000, run: (*run).idle},
		{Name: "w7", About: "open, echo of 64 B, close; 64 at a time, 1 connection", Unit: "stream",
			Conns: 1, Streams: 64, Size: 64, run: (*run).churn},
		{Name: "w8-2k", About: "2,000 connections, an echo of 1 KiB each second on each", Unit: "echo",
			Conns: 2000, Streams: 2000, Size: 1 << 10, Period: time.Second, run: (*run).many},
		{Name: "w8-8k", About: "8,000 connections, an echo of 1 KiB each second on each", Unit: "echo",
			Conns: 8000, Streams: 8000, Size: 1 << 10, Period: time.Second, run: (*run).many},
		longPath("w9-50ms", 50*time.Millisecond, 1),
		longPath("w9-100ms", 100*time.Millisecond, 1),
		longPath("w9-8x50ms", 50*time.Millisecond, 8),
		longPath("w9-8x100ms", 100*time.Millisecond, 8),
		{Name: "w10-1k", About: "1,000 connections that are not used", Unit: "connection",
			Conns: 1000, Streams: 1000, Size: 64, run: (*run).connect},
	}
}

// longPath is streams of 64 KiB messages one way over a long path. The first MiB of a stream is
// timed by itself.
func longPath(name string, rtt time.Duration, streams int) Workload {
	about := fmt.Sprintf("one way, 64 KiB, %d streams, 1 connection, a path of %v there and back", streams, rtt)
	return Workload{Name: name, About: strings.Replace(about, " 1 streams", " 1 stream", 1), Unit: "message",
		Conns: 1, Streams: streams, Size: 64 << 10, RTT: rtt, run: (*run).longPath}
}

// Find returns the workload of this name or, if there is none, those whose names start with name
// and a dash: "w3" stands for "w3-64" and "w3-1k".
func Find(name string) ([]Workload, error) {
	var found []Workload
	var names []string
	for _, w := range All() {
		names = append(names, w.Name)
		if w.Name == name {
			return []Workload{w}, nil
		}
		if strings.HasPrefix(w.Name, name+"-") {
			found = append(found, w)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no workload %q; there are %s", name, strings.Join(names, ", "))
	}
	return found, nil
}
