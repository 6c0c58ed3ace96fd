package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An SLO is conditions on a run's figures that must all hold.
type SLO []condition

type condition struct {
	text   string
	metric metric
	op     string
	limit  float64
}

// ops are tried in this order: the longer ones first.
var ops = []string{"<=", ">=", "==", "!=", "<", ">"}

// ParseSLO reads conditions like "p99<2ms,errors==0,deferred<0.1%".
func ParseSLO(text string) (SLO, error) {
	var slo SLO
	for part := range strings.SplitSeq(text, ",") {
		c, err := parseCondition(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("slo %q: %w", part, err)
		}
		slo = append(slo, c)
	}
	return slo, nil
}

func parseCondition(text string) (condition, error) {
	for _, op := range ops {
		name, limit, ok := strings.Cut(text, op)
		if !ok {
			continue
		}
		m, err := findMetric(strings.TrimSpace(name))
		if err != nil {
			return condition{}, err
		}
		v, err := m.unit.parse(strings.TrimSpace(limit))
		return condition{text, m, op, v}, err
	}
	return condition{}, fmt.Errorf("want FIGURE, one of %s, and a limit", strings.Join(ops, " "))
}

// parse reads a limit: 2ms, 10%, 64MiB, 20k, 1.5.
func (u unit) parse(text string) (float64, error) {
	if u == nanoseconds {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration like 2ms", text)
		}
		return float64(d), nil
	}
	factor := 1.0
	for _, s := range []struct {
		suffix string
		factor float64
	}{{"/s", 1}, {"%", 0.01}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}} {
		if rest, ok := strings.CutSuffix(text, s.suffix); ok {
			text = strings.TrimSpace(rest)
			factor *= s.factor
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return v * factor, nil
}

func (c condition) holds(v float64) bool {
	switch c.op {
	case "<=":
		return v <= c.limit
	case ">=":
		return v >= c.limit
	case "==":
		return v == c.limit
	case "!=":
		return v != c.limit
	case "<":
		return v < c.limit
	}
	return v > c.limit
}

// A Verdict is one condition of an SLO and whether it held.
type Verdict struct {
	Condition string  `json:"condition"`
	Value     float64 `json:"value"`
	Text      string  `json:"text"` // the value with its unit
	Pass      bool    `json:"pass"`
}

// Judges reports whether one of the conditions is on that figure.
func Judges(verdicts []Verdict, figure string) bool {
	return slices.ContainsFunc(verdicts, func(v Verdict) bool {
		c, err := parseCondition(v.Condition)
		return err == nil && c.metric.name == figure
	})
}

// Judge says which conditions the runs meet, by their medians, or by the worst run for
// counters and shares that should be 0. A figure that was not measured meets none.
func (s SLO) Judge(runs []*Run) (verdicts []Verdict, pass bool) {
	pass = true
	for _, c := range s {
		value, measured := c.metric.over(runs)
		v := Verdict{Condition: c.text, Value: value, Text: c.metric.unit.format(value), Pass: measured && c.holds(value)}
		if !measured {
			v.Text = notMeasured
		}
		pass = pass && v.Pass
		verdicts = append(verdicts, v)
	}
	return verdicts, pass
}
