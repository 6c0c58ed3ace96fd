package load

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// Sizes is a distribution of message sizes. They are drawn in advance, so that a message's
// size costs one load from a table.
type Sizes struct {
	text  string
	table []int // a power of two of them
	mean  float64
}

const tableLen = 4096

// ParseSizes reads
//
//	64, 1KiB, 16MiB           every message that long
//	uniform:64-4KiB           evenly between the two
//	lognormal:1KiB,1.5,1MiB   median, sigma, and the longest
//	mix:64=90,64KiB=9,1MiB=1  sizes and their weights
//	@FILE                     the same mix from a file, a size and a weight a line
func ParseSizes(text string) (Sizes, error) {
	kind, rest, ok := strings.Cut(text, ":")
	s := Sizes{text: text}
	var err error
	switch {
	case strings.HasPrefix(text, "@"):
		s.table, err = mixFile(text[1:])
	case !ok:
		var n int
		n, err = ParseBytes(text)
		s.table = []int{n}
	case kind == "uniform":
		s.table, err = uniform(rest)
	case kind == "lognormal":
		s.table, err = lognormal(rest)
	case kind == "mix":
		s.table, err = mix(strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == '=' }))
	default:
		err = errors.New("want BYTES, uniform:, lognormal:, mix: or @FILE")
	}
	if err != nil {
		return Sizes{}, fmt.Errorf("size %q: %w", text, err)
	}
	for _, n := range s.table {
		s.mean += float64(n) / float64(len(s.table))
	}
	return s, nil
}

// At returns the size of message seq.
func (s *Sizes) At(seq uint64) int { return s.table[seq&uint64(len(s.table)-1)] }

// Max returns the longest size.
func (s *Sizes) Max() (n int) {
	for _, v := range s.table {
		n = max(n, v)
	}
	return n
}

// min returns the shortest size.
func (s *Sizes) min() int { return slices.Min(s.table) }

// Mean returns the mean size.
func (s *Sizes) Mean() float64 { return s.mean }

// String returns what ParseSizes read.
func (s Sizes) String() string { return s.text }

// MarshalText returns what ParseSizes read.
func (s Sizes) MarshalText() ([]byte, error) { return []byte(s.text), nil }

// UnmarshalText is ParseSizes.
func (s *Sizes) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSizes(string(text))
	return err
}

func newRNG() *rand.Rand { return rand.New(rand.NewPCG(3, 4)) }

func uniform(text string) ([]int, error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		return nil, errors.New("want uniform:FROM-TO")
	}
	low, err1 := ParseBytes(from)
	high, err2 := ParseBytes(to)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if high < low {
		return nil, errors.New("the upper end is below the lower")
	}
	table, rng := make([]int, tableLen), newRNG()
	for i := range table {
		table[i] = low + rng.IntN(high-low+1)
	}
	return table, nil
}

func lognormal(text string) ([]int, error) {
	f := strings.Split(text, ",")
	if len(f) != 3 {
		return nil, errors.New("want lognormal:MEDIAN,SIGMA,MAX")
	}
	median, err1 := ParseBytes(f[0])
	sigma, err2 := strconv.ParseFloat(f[1], 64)
	most, err3 := ParseBytes(f[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if sigma < 0 || math.IsNaN(sigma) || most < median {
		return nil, errors.New("sigma below 0, or the longest below the median")
	}
	table, rng := make([]int, tableLen), newRNG()
	for i := range table {
		n := float64(median) * math.Exp(sigma*rng.NormFloat64())
		table[i] = int(min(max(n, peer.HeaderSize), float64(most)))
	}
	return table, nil
}

func mixFile(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return mix(strings.Fields(string(text)))
}

// mix makes a table from sizes and weights that alternate.
func mix(f []string) ([]int, error) {
	if len(f) == 0 || len(f)%2 != 0 {
		return nil, errors.New("want sizes with a weight each")
	}
	var sizes []int
	var weights []float64
	var total float64
	for i := 0; i < len(f); i += 2 {
		n, err1 := ParseBytes(f[i])
		w, err2 := strconv.ParseFloat(strings.TrimSuffix(f[i+1], "%"), 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if !(w > 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("weight %q is not above 0", f[i+1])
		}
		sizes, weights, total = append(sizes, n), append(weights, w), total+w
	}
	table, rng := make([]int, tableLen), newRNG()
	for i := range table {
		at := rng.Float64() * total
		pick := 0
		for pick < len(weights)-1 && at >= weights[pick] {
			at -= weights[pick]
			pick++
		}
		table[i] = sizes[pick]
	}
	return table, nil
}

var units = []struct {
	suffix string
	factor int
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"B", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"", 1}}

// ParseBytes reads a number of bytes: 64, 4KiB, 16MiB.
func ParseBytes(text string) (int, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(n > 0) || n*float64(u.factor) > 1<<30 {
			break
		}
		return int(n * float64(u.factor)), nil
	}
	return 0, fmt.Errorf("%q is not a size from 1 to 1GiB", text)
}
