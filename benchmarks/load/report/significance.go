package report

import (
	"math"
	"math/rand/v2"
)

// maxDivisions is how many divisions of the runs are looked at. Where there are more of
// them, as many are drawn.
const maxDivisions = 10_000

// adjusted says for each figure how likely a difference like that between a and b is in
// any of the figures, if the runs of both were of the same thing. The more figures are
// looked at the more of them differ by chance: eleven at 5 % each would find something in
// most pairs of equal reports.
//
// It divides the runs of both in two groups of their sizes, in all ways, and counts in how
// many of those any figure differs at least as much as this one does between a and b.
// Figures that go together, such as rate and latency, then count as one.
//
// a and b have a row for each figure and a column for each run; NaN is not measured.
func adjusted(a, b [][]float64) []float64 {
	if len(a) == 0 {
		return nil
	}
	na, n := len(a[0]), len(a[0])+len(b[0])
	values := make([][]float64, len(a))
	for i := range a {
		values[i] = append(append(values[i], a[i]...), b[i]...)
	}
	inB := make([]bool, n)
	for i := na; i < n; i++ {
		inB[i] = true
	}
	observed := make([]float64, len(values))
	for i, v := range values {
		observed[i] = difference(v, inB) * (1 - 1e-9) // divisions that are equal come out so
	}
	reached, all := make([]int, len(values)), 0
	divide(inB, func() {
		most := 0.0
		for _, v := range values {
			most = max(most, difference(v, inB))
		}
		for i, d := range observed {
			if most >= d {
				reached[i]++
			}
		}
		all++
	})
	p := make([]float64, len(values))
	for i := range p {
		p[i] = float64(reached[i]) / float64(all)
	}
	return p
}

// divide calls f with the division that inB has, and with all others of the same sizes, or
// with maxDivisions that are drawn.
func divide(inB []bool, f func()) {
	n, k := len(inB), 0
	for _, b := range inB {
		if b {
			k++
		}
	}
	if math.Exp(lnFactorial(n)-lnFactorial(k)-lnFactorial(n-k)) > maxDivisions+0.5 {
		rng := rand.New(rand.NewPCG(5, 6)) // the same reports, the same verdict
		for range maxDivisions {
			f()
			rng.Shuffle(n, func(i, j int) { inB[i], inB[j] = inB[j], inB[i] })
		}
		return
	}
	var choose func(at, left int)
	choose = func(at, left int) {
		if left == 0 || left == n-at {
			for i := at; i < n; i++ {
				inB[i] = left > 0
			}
			f()
			return
		}
		inB[at] = true
		choose(at+1, left-1)
		inB[at] = false
		choose(at+1, left)
	}
	choose(0, k)
}

func lnFactorial(n int) float64 {
	v, _ := math.Lgamma(float64(n + 1))
	return v
}

// difference is by how much the means of the two groups differ, in standard errors; 0 if a
// group has fewer than two values.
func difference(values []float64, inB []bool) float64 {
	var n, sum [2]float64
	group := func(i int) int {
		if inB[i] {
			return 1
		}
		return 0
	}
	for i, v := range values {
		if g := group(i); !math.IsNaN(v) {
			n[g]++
			sum[g] += v
		}
	}
	if n[0] < 2 || n[1] < 2 {
		return 0
	}
	mean := [2]float64{sum[0] / n[0], sum[1] / n[1]}
	var squares [2]float64
	for i, v := range values {
		if g := group(i); !math.IsNaN(v) {
			squares[g] += (v - mean[g]) * (v - mean[g])
		}
	}
	d := math.Abs(mean[1] - mean[0])
	if d == 0 {
		return 0
	}
	// A spread of nothing makes the difference infinite, which compares as it should.
	return d / math.Sqrt(squares[0]/(n[0]-1)/n[0]+squares[1]/(n[1]-1)/n[1])
}
