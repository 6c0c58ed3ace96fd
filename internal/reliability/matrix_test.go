package reliability

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever happens to the path, and however a program sends and receives: nothing is lost that was
// reported as delivered, nothing comes twice, out of order or changed, no failure looks like an
// end in order, whoever waits is told once, what is said not to be processed was not, and nothing
// is left.
func TestMatrix(t *testing.T) {
	h := startHost(t)
	m := &matrix{t: t, host: h, rows: map[string]*[kinds]tally{}}
	if *seed != 0 {
		m.one(*seed)
		return
	}
	m.all(*from, *runs)
	t.Log("\n" + m.String())
	if *report != "" {
		if err := os.WriteFile(*report, []byte(m.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// workers is how many scenarios run at once.
const workers = 16

// group is after how many scenarios both processes must be at rest.
const group = 250

// A tally counts the scenarios of one wire and kind of fault.
type tally struct{ runs, struck, whole, broken, refused, wrong int }

func (c *tally) add(d *tally) {
	c.runs += d.runs
	c.struck += d.struck
	c.whole += d.whole
	c.broken += d.broken
	c.refused += d.refused
	c.wrong += d.wrong
}

// A matrix is many scenarios.
type matrix struct {
	t     *testing.T
	host  *host
	begun time.Time

	mu      sync.Mutex
	rows    map[string]*[kinds]tally
	done    int
	of      int
	wrong   []string
	slowest time.Duration
	slow    uint64 // its seed
}

// one runs one scenario, and says all of it.
func (m *matrix) one(seed uint64) {
	sc := newScenario(seed)
	o := m.host.run(m.t, sc)
	m.t.Logf("%v\nstruck %t, %d streams whole, %d broken, %d refused, %v, connections ended: %q\nthe server's log: %s", sc, o.struck, o.whole, o.broken, o.refused, o.took, o.ends, o.log)
	for _, w := range o.wrong {
		m.t.Error(w)
	}
}

func (m *matrix) all(from uint64, n int) {
	m.begun, m.of = time.Now(), n
	var before resources
	m.rest(&before, 0, 0) // the certificate, and what the first use of things makes
	for begin := 0; begin < n && len(m.wrong) < 50; begin += group {
		end := min(n, begin+group)
		seeds := make(chan uint64)
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for s := range seeds {
					sc := newScenario(s)
					m.note(sc, m.host.run(m.t, sc))
				}
			})
		}
		for i := begin; i < end; i++ {
			seeds <- from + uint64(i)
		}
		close(seeds)
		all.Wait()
		m.rest(&before, from+uint64(begin), from+uint64(end)-1)
	}
	fmt.Fprintln(os.Stderr)
}

// rest checks that both processes hold what they held before.
func (m *matrix) rest(before *resources, first, last uint64) {
	if !before.taken { // one scenario of each wire first
		for i := range wires {
			m.host.run(m.t, sweptScenario(small|uint64(i)))
		}
	}
	var left string
	if err := m.host.calls.Call("Host.Rest", 0, &left); err != nil {
		m.t.Fatal(err)
	}
	for who, left := range map[string]string{"server": left, "client": idle(before)} {
		if left != "" {
			m.t.Errorf("leak: left at the %s by one of the seeds %d to %d: %s", who, first, last, left)
		}
	}
}

func (m *matrix) note(sc *scenario, o outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := m.rows[sc.row()]
	if row == nil {
		row = new([kinds]tally)
		m.rows[sc.row()] = row
	}
	c := tally{runs: 1, whole: o.whole, broken: o.broken, refused: o.refused}
	if o.struck {
		c.struck = 1
	}
	if len(o.wrong) > 0 {
		c.wrong = 1
		if len(m.wrong) < 50 {
			m.wrong = append(m.wrong, fmt.Sprintf("seed %d: %v", sc.seed, sc))
			m.t.Errorf("seed %d: %v\n\t%s\nonce more: go test ./internal/reliability -run TestMatrix -seed %d", sc.seed, sc, strings.Join(o.wrong, "\n\t"), sc.seed)
		}
	}
	row[sc.fault.kind].add(&c)
	m.done++
	if o.took > m.slowest {
		m.slowest, m.slow = o.took, sc.seed
	}
	if *tell {
		m.t.Logf("seed %d: %v: struck %t, %d whole, %d broken, %v", sc.seed, sc, o.struck, o.whole, o.broken, o.took)
	}
	m.progress()
}

// progress draws how far it is.
func (m *matrix) progress() {
	if !testing.Verbose() || m.done%10 != 0 && m.done != m.of {
		return
	}
	const width = 40
	full := width * m.done / m.of
	left := time.Since(m.begun) * time.Duration(m.of-m.done) / time.Duration(m.done)
	fmt.Fprintf(os.Stderr, "\r[%s%s] %d of %d, %d wrong, %v left ", strings.Repeat("#", full), strings.Repeat(".", width-full), m.done, m.of, len(m.wrong), left.Round(time.Second))
}

// String is the report.
func (m *matrix) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d scenarios from seed %d on, in %v; the slowest was seed %d with %v\n\n", m.done, *from, time.Since(m.begun).Round(time.Second), m.slow, m.slowest.Round(time.Millisecond))
	fmt.Fprintf(&b, "%-14s %-10s %6s %6s %7s %7s %8s %6s\n", "wire", "fault", "runs", "struck", "whole", "broken", "refused", "wrong")
	var names []string
	for name := range m.rows {
		names = append(names, name)
	}
	slices.Sort(names)
	var sum tally
	line := func(name, fault string, c *tally) {
		fmt.Fprintf(&b, "%-14s %-10s %6d %6d %7d %7d %8d %6d\n", name, fault, c.runs, c.struck, c.whole, c.broken, c.refused, c.wrong)
	}
	for _, name := range names {
		for k, c := range m.rows[name] {
			if c.runs > 0 {
				line(name, kind(k).String(), &c)
				sum.add(&c)
			}
		}
	}
	line("all", "", &sum)
	for _, w := range m.wrong {
		fmt.Fprintf(&b, "\nwrong: %s", w)
	}
	return b.String()
}
