package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// pairTime is how long each half of a pair is measured.
const pairTime = 5 * time.Second

// BenchmarkObserved compares the CPU for an echo of servers that are looked at with that of servers that
// are not: with "admin" their pages are on and watched twice, with "observed" there are metrics that are
// scraped every 15 s and a sampled span for each stream, with "on" also pages that nobody watches, and
// with "everything" all of that. A round is a pair of runs:
//
//	go test -run '^$' -bench Observed/w2/send+everything -benchtime 40x -timeout 1h ./cmd/versus
//
// Both runs of a pair are in this process, one after the other in an order that is drawn, so that the
// machine is the same for both. The figure is all CPU of the ones by all CPU of the others, less one, in
// percent, with the interval that 95 of 100 drawn sets of these pairs are within.
func BenchmarkObserved(b *testing.B) {
	for _, name := range []string{"w2/admin", "w2/send+observed", "w2/send+on", "w2/send+everything", "w8-2k/admin", "w8-2k/send+observed", "w8-2k/send+on", "w8-2k/send+everything"} {
		b.Run(name, func(b *testing.B) {
			load, looked, _ := strings.Cut(name, "/")
			ws, err := workload.Find(load)
			if err != nil {
				b.Fatal(err)
			}
			peers := [2]peer.Peer{}
			for i, name := range []string{"sluice+send", "sluice+" + looked} {
				if peers[i], err = all.Find(name); err != nil {
					b.Fatal(err)
				}
			}
			var pairs [][2]float64
			for range b.N {
				var pair [2]float64
				for _, i := range rand.Perm(2) {
					pair[i] = cpuOf(b, ws[0], peers[i])
				}
				b.Logf("%.3f us without, %.3f us with: %+.2f %%", pair[0], pair[1], more(pair))
				pairs = append(pairs, pair)
			}
			if b.N == 1 {
				return // it is only tried
			}
			low, high := bootstrap(pairs)
			b.ReportMetric(more(pairs...), "%more")
			b.ReportMetric(low, "%low")
			b.ReportMetric(high, "%high")
		})
	}
}

// cpuOf is the CPU that both sides take for an echo, in microseconds.
func cpuOf(b *testing.B, w workload.Workload, p peer.Peer) float64 {
	o := w.Options()
	s, err := p.Serve("127.0.0.1:0", o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var begin sync.Once
	probe := func(settled bool) (workload.Sample, error) {
		begin.Do(runtime.GC) // a run that happens to have one more would decide the pair
		return workload.Take(settled)
	}
	res, err := workload.Run(context.Background(), w, p, workload.Config{Addr: s.Addr(), Time: pairTime, Warmup: time.Second, Probe: probe})
	if err != nil {
		b.Fatal(err)
	}
	return res.ServerCPU() // the whole process
}

// more is by how many percent the second of the pairs are more than the first, all together.
func more(pairs ...[2]float64) float64 {
	var sums [2]float64
	for _, p := range pairs {
		sums[0], sums[1] = sums[0]+p[0], sums[1]+p[1]
	}
	return 100 * (sums[1]/sums[0] - 1)
}

// bootstrap returns the interval of more.
func bootstrap(pairs [][2]float64) (low, high float64) {
	const sets = 10_000
	drawn, of := make([]float64, sets), make([][2]float64, len(pairs))
	for i := range drawn {
		for j := range of {
			of[j] = pairs[rand.IntN(len(pairs))]
		}
		drawn[i] = more(of...)
	}
	slices.Sort(drawn)
	return drawn[sets*25/1000], drawn[sets*975/1000]
}
