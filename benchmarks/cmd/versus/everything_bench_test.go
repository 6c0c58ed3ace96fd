package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
	"github.com/sluicerpc/sluice/benchmarks/workload"
)

// pairTime is how long each half of a pair is measured.
const pairTime = 5 * time.Second

// BenchmarkEverythingOn compares the CPU for an echo where servers have their pages on, watched twice,
// with metrics that are scraped every 15 s and a sampled span for each stream, with that where there is
// none of it. A round is a pair of runs:
//
//	go test -run '^$' -bench EverythingOn -benchtime 40x -timeout 1h ./cmd/versus
//
// Both runs of a pair are in this process, one after the other in an order that is drawn, so that the
// machine is the same for both. The figure is all CPU of the ones by all CPU of the others, less one, in
// percent, with the interval that 95 of 100 drawn sets of these pairs are within.
func BenchmarkEverythingOn(b *testing.B) {
	for _, name := range []string{"w2", "w8-2k"} {
		b.Run(name, func(b *testing.B) {
			ws, err := workload.Find(name)
			if err != nil {
				b.Fatal(err)
			}
			peers := [2]peer.Peer{}
			for i, name := range []string{"sluice+send", "sluice+send+everything"} {
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
