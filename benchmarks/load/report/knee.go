package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Probe is one step of the search for the knee.
type Probe struct {
	Rate   float64  `json:"rate"` // due, messages a second
	Got    float64  `json:"messages_per_s"`
	P99    int64    `json:"p99_ns"` // 0: not measured
	Pass   bool     `json:"pass"`
	Failed []string `json:"failed,omitempty"` // conditions of the SLO
	// Invalid is why the run says nothing about the server.
	Invalid []string `json:"invalid,omitempty"`
}

// Missed reports whether the server missed the SLO: an INVALID run does not show that.
func (p Probe) Missed() bool { return !p.Pass && len(p.Invalid) == 0 }

// Outcome is how the step ended.
func (p Probe) Outcome() string {
	word := passed(p.Pass)
	if len(p.Invalid) > 0 {
		word = "INVALID"
	}
	return strings.TrimSpace(word + " " + strings.Join(slices.Concat(p.Invalid, p.Failed), "; "))
}

// p99 is the step's p99 as text.
func (p Probe) p99() string {
	if p.P99 == 0 {
		return notMeasured
	}
	return Duration(p.P99)
}

// A Knee is what the steps of a search say together.
type Knee struct {
	Rate  float64 // the highest rate that passed, messages a second; 0: none did
	Above float64 // the lowest rate above it at which the server missed the SLO; 0: it did at none
	// Invalid is the lowest rate above Rate at which the client was the bottleneck, if that is
	// below Above: then the knee is not known. 0: there is no such.
	Invalid float64
}

// KneeOf sums the steps up.
func KneeOf(probes []Probe) (k Knee) {
	for _, p := range probes {
		if p.Pass {
			k.Rate = max(k.Rate, p.Rate)
		}
	}
	lowest := func(is func(Probe) bool) float64 {
		found := slices.DeleteFunc(slices.Clone(probes), func(p Probe) bool { return p.Rate <= k.Rate || !is(p) })
		if len(found) == 0 {
			return 0
		}
		return slices.MinFunc(found, func(a, b Probe) int { return cmp.Compare(a.Rate, b.Rate) }).Rate
	}
	k.Above = lowest(Probe.Missed)
	if k.Invalid = lowest(func(p Probe) bool { return len(p.Invalid) > 0 }); k.Above > 0 && k.Above <= k.Invalid {
		k.Invalid = 0
	}
	return k
}

// Found reports whether the server's own limit was found.
func (k Knee) Found() bool { return k.Rate > 0 && k.Above > 0 && k.Invalid == 0 }

// String is the verdict.
func (k Knee) String() string {
	switch {
	case k.Found():
		return fmt.Sprintf("knee: the SLO holds up to %s/s, and is missed at %s/s", Number(k.Rate), Number(k.Above))
	case k.Invalid > 0 && k.Rate > 0:
		return fmt.Sprintf("no knee found: the SLO holds at %s/s, and at %s/s the client is the bottleneck (INVALID)", Number(k.Rate), Number(k.Invalid))
	case k.Rate > 0:
		return fmt.Sprintf("no knee found: the SLO holds at every rate that was tried, up to %s/s", Number(k.Rate))
	case k.Invalid > 0:
		return fmt.Sprintf("no knee found: at %s/s already the client is the bottleneck (INVALID)", Number(k.Invalid))
	}
	return "no knee found: the SLO holds at no rate that was tried"
}
