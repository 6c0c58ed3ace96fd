package admin

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

func TestFormats(t *testing.T) {
	for want, got := range map[string]string{
		"0": count(0), "999": count(999), "1,000": count(1000), "12,345,678": count(uint64(12345678)), "-1,234": count(-1234),
		"0 B": size(0), "999 B": size(999), "1.00 KiB": size(1024), "1.46 KiB": size(1500), "20.0 MiB": size(20 << 20), "512 GiB": size(512 << 30),
		"–": rate(-1), "0.5": rate(0.5), "12": rate(12), "1.50 k": rate(1500), "1.00 M": rate(1e6),
		"0 s": duration(0), "999 ns": duration(999), "1 µs": duration(1999), "15 ms": duration(15 * time.Millisecond), "1.9 s": duration(1999 * time.Millisecond),
		"59 s": duration(59 * time.Second), "1m 01s": duration(61 * time.Second), "59m 59s": duration(time.Hour - 1), "2h 03m": duration(123 * time.Minute), "2d 01h": duration(49 * time.Hour), "-3 s": duration(-3 * time.Second)[:2] + " s",
		"1 stream": plural(1, "stream"), "2,000 streams": plural(2000, "stream"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	now := time.Date(2026, 12, 1, 3, 0, 5, 0, time.UTC)
	if a, b := clock(now.Add(-time.Minute), now), clock(now.Add(-4*time.Hour), now); a != "02:59:05" || b != "Nov 30 23:00" {
		t.Errorf("%q and %q", a, b)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"pkg.Service/Method": "pkg.Service/Method", "größe": "größe", "a\x1b[31mb\n": `a\x1b[31mb\n`, "\u202e\u2066x": `\u202e\u2066x`,
		"bad \xff utf-8": `bad \xff utf-8`, "<b>": "<b>", strings.Repeat("é", 200): strings.Repeat("é", mostText) + "…",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// A top has the rows that sorting all would have first.
func TestTop(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		tp := top[int]{most: r.IntN(20)}
		for range 2 {
			tp.reset()
			var all []ranked[int]
			for i := range r.IntN(60) {
				at := order{float64(r.IntN(5)), uint64(r.IntN(4)), uint64(i)}
				all = append(all, ranked[int]{at, i})
				if tp.takes(at) {
					tp.add(at, i)
				}
			}
			slices.SortFunc(all, func(x, y ranked[int]) int {
				if x.at.before(y.at) {
					return -1
				}
				return 1
			})
			if got, want := tp.rows(0), all[:min(len(all), tp.most)]; tp.seen != len(all) || !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v, want %v", seed, got, want)
			}
		}
	}
}

// A percentile is off by an eighth at most.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		var h histogram
		var all []time.Duration
		for range 1 + r.IntN(500) {
			d := time.Duration(1 << r.IntN(40))
			d += time.Duration(r.Int64N(int64(d)))
			all = append(all, d)
			h.add(d)
		}
		slices.Sort(all)
		for _, p := range []float64{0, 0.5, 0.99} {
			want, got := all[int(p*float64(len(all)))], h.percentile(p)
			if diff := max(got-want, want-got); diff > want/8+4 {
				t.Fatalf("%v of %d: %v, want %v", p, len(all), got, want)
			}
		}
	}
	if got := new(histogram).percentile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestRing(t *testing.T) {
	var r ring[int]
	for n := range 3 * mostClosed {
		r.put(n)
		got := r.latest()
		if len(got) != min(n+1, mostClosed) || got[0] != n || got[len(got)-1] != max(0, n+1-mostClosed) {
			t.Fatalf("after %d: %d, from %d to %d", n, len(got), got[0], got[len(got)-1])
		}
	}
}

// Peers choose names of methods, and codes: what is kept of them is bounded.
func TestRecorderIsBounded(t *testing.T) {
	var r recorder
	long := strings.Repeat("x", 10_000)
	for i := range 3 * mostMethods {
		r.method(count(i) + long).count(&kernel.StreamInfo{Code: status.Code(i)})
	}
	if m := r.methods[otherMethods]; len(r.methods) != mostMethods+1 || m.ended != 2*mostMethods || len(m.codes) != mostCodes+1 || m.codes[otherCodes] != 2*mostMethods-mostCodes {
		t.Errorf("%d methods, %+v", len(r.methods), m)
	}
	for name := range r.methods {
		if len(name) > mostName {
			t.Fatalf("a name of %d bytes", len(name))
		}
	}
	rows := r.all()
	if len(rows) != mostMethods+1 || rows[0].Method > rows[1].Method {
		t.Errorf("%d rows", len(rows))
	}
}

// Rates are those since the last look, also where streams come and go and change places.
func TestRates(t *testing.T) {
	var w was
	at := time.Unix(1000, 0)
	round := func(gap time.Duration, sent ...uint64) (got []float64) { // by index: the messages of stream i+1; 0: it is not there
		at = at.Add(gap)
		span := at.Sub(w.streamsAt)
		w.renewing = span >= leastGap
		w.cursor, w.index, w.next = 0, nil, w.next[:0]
		for i, n := range sent {
			if n > 0 {
				r := w.streamRates(&kernel.StreamInfo{ID: uint64(i + 1), MessagesSent: n, Age: time.Hour}, span)
				got = append(got, r.messages)
			}
		}
		if w.renewing {
			w.streams, w.next, w.streamsAt = w.next, w.streams, at
		}
		return got
	}
	for i, c := range []struct {
		gap  time.Duration
		sent []uint64
		want []float64
	}{
		{0, []uint64{10, 20, 30}, []float64{-1, -1, -1}},
		{time.Second, []uint64{20, 20, 31}, []float64{10, 0, 1}},
		{100 * time.Millisecond, []uint64{20, 20, 99}, []float64{10, 0, 1}}, // too soon: as before
		{900 * time.Millisecond, []uint64{0, 20, 41, 5}, []float64{0, 10, -1}},
		{2 * time.Second, []uint64{7, 24, 0, 25, 9}, []float64{-1, 2, 10, -1}},
		{time.Minute, []uint64{7, 24}, []float64{-1, -1}}, // too long ago
	} {
		if got := round(c.gap, c.sent...); !slices.Equal(got, c.want) {
			t.Errorf("round %d: %v, want %v", i, got, c.want)
		}
	}
}

func TestPasts(t *testing.T) {
	var p pasts
	at := time.Unix(1000, 0)
	for n := range uint64(100) {
		p.begin(n+1, at)
		if got := p.add("a", float64(n)); len(got) != min(int(n)+1, pastLength) || got[len(got)-1] != float64(n) {
			t.Fatalf("%d: %v", n, got)
		}
		if got := p.add("a", 1e9); got[len(got)-1] != float64(n) { // another page of the same look
			t.Fatalf("%d: %v", n, got)
		}
		p.begin(n+1000, at.Add(time.Millisecond)) // somebody looks once
		if got := p.add("a", 1e9); got[len(got)-1] != float64(n) {
			t.Fatalf("%d: %v", n, got)
		}
		at = at.Add(time.Second)
	}
	p.begin(5000, at.Add(time.Minute))
	if got := p.add("a", 1); len(got) != 1 {
		t.Errorf("after a minute without a look: %v", got)
	}
	if got := points([]float64{0, 5, 10}); got != "57,15.0 58,8.0 59,1.0" {
		t.Errorf("%q", got)
	}
}

// Where a page is derived from another, its changes lead from one to the other.
func TestChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	make1 := func() *view {
		v := &view{Lead: []line{{Text: count(r.IntN(2))}}, Figures: []figure{{Key: "f", Value: count(r.IntN(2))}}}
		t := table{Key: "t", Note: count(r.IntN(2))}
		for _, k := range r.Perm(6)[:r.IntN(6)] {
			t.Rows = append(t.Rows, row{count(k), []cell{text(count(k)), text(count(r.IntN(2)))}})
		}
		v.Tables = []table{t}
		return v
	}
	old := &view{}
	rows := map[string][]cell{}
	var keys []string
	for n := range 500 {
		v := make1()
		d := v.changes(old)
		change, ok := d.Tables["t"]
		for key, cells := range change.Rows {
			if rows[key] == nil {
				rows[key] = make([]cell, 2)
				if len(cells) != 2 {
					t.Fatalf("%d: a new row with %v", n, cells)
				}
			}
			for i, c := range cells {
				rows[key][i] = c
			}
		}
		if change.Order != nil {
			keys = *change.Order
		}
		for key := range rows { // as the browser does
			if !slices.Contains(keys, key) {
				delete(rows, key)
			}
		}
		want := v.Tables[0].Rows
		for i, r := range want {
			if len(keys) != len(want) || keys[i] != r.Key || !slices.Equal(rows[r.Key], r.Cells) {
				t.Fatalf("%d: %v %v, want %v", n, keys, rows, want)
			}
		}
		if !ok && change.Order != nil {
			t.Fatal("a change that is none")
		}
		old = v
	}
}
