package load

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mix")
	if err := os.WriteFile(path, []byte("64 3\n1KiB 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text     string
		mean     float64
		max, min int
	}{
		{"64", 64, 64, 64},
		{"16MiB", 16 << 20, 16 << 20, 16 << 20},
		{"uniform:100-300", 200, 300, 100},
		{"lognormal:1KiB,0.5,64KiB", 1024 * math.Exp(0.125), 64 << 10, 24},
		{"mix:64=90,1KiB=10", 160, 1024, 64},
		{"mix:64=90%,1KiB=10%", 160, 1024, 64},
		{"@" + path, 304, 1024, 64},
	} {
		s, err := ParseSizes(tt.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if d := math.Abs(s.Mean()-tt.mean) / tt.mean; d > 0.05 {
			t.Errorf("%s: mean %.0f, want %.0f", tt.text, s.Mean(), tt.mean)
		}
		for seq := range uint64(2 * tableLen) {
			if n := s.At(seq); n < tt.min || n > tt.max || n > s.Max() {
				t.Fatalf("%s: message of %d bytes", tt.text, n)
			}
		}
		if s.String() != tt.text {
			t.Errorf("%s became %s", tt.text, s)
		}
	}
	for _, bad := range []string{"", "x", "0", "-5", "2GiB", "uniform:5", "uniform:300-100", "lognormal:64", "lognormal:64,-1,64", "mix:", "mix:64", "mix:64=0", "mix:64=NaN", "normal:5", "@/nowhere/at/all"} {
		if _, err := ParseSizes(bad); err == nil {
			t.Errorf("size %q accepted", bad)
		}
	}
}

func TestParseFaults(t *testing.T) {
	for _, text := range []string{"5s=kill-conns:10%", "1m0s=stall-readers:2s", "500ms=delay:30ms/5s"} {
		f, err := ParseFault(text)
		if err != nil || f.String() != text {
			t.Errorf("%q became %q, %v", text, f, err)
		}
	}
	for _, bad := range []string{"", "5s", "5s=kill-conns", "5s=kill-conns:0%", "5s=kill-conns:101%", "-1s=kill-conns:5%", "5s=stall-readers:x", "5s=stall-readers:0s", "5s=delay:5ms", "5s=delay:0s/5s", "5s=melt:5%", "x=kill-conns:5%"} {
		if _, err := ParseFault(bad); err == nil {
			t.Errorf("fault %q accepted", bad)
		}
	}
}

func TestPresetsAreValid(t *testing.T) {
	for _, p := range Presets() {
		if err := p.Config.Check(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
	if len(Presets()) != 8 {
		t.Errorf("%d presets, want W1 to W8", len(Presets()))
	}
	if _, err := FindPreset("nosuch"); err == nil || !strings.Contains(err.Error(), "firehose") {
		t.Errorf("an unknown preset: %v", err)
	}
}

func TestCheckNamesTheFlag(t *testing.T) {
	for flag, change := range map[string]func(*Config){
		"--workload":     func(c *Config) { c.Workload = "juggle" },
		"--conns":        func(c *Config) { c.Conns = 0 },
		"--streams":      func(c *Config) { c.Streams = -1 },
		"--outstanding":  func(c *Config) { c.Outstanding = 0 },
		"--in-flight":    func(c *Config) { c.InFlight = 0 },
		"--size":         func(c *Config) { c.Size = Sizes{} },
		"--bulk-streams": func(c *Config) { c.BulkStreams, c.Workload = 1, OneWay },
		"--bulk-size":    func(c *Config) { c.BulkStreams, c.BulkSize = 1, Sizes{} },
		"--stage":        func(c *Config) { _ = c.Stage.UnmarshalText([]byte("1s@5")); c.Rate = 5 },
		"--duration":     func(c *Config) { c.Duration = 0 },
		"--warmup":       func(c *Config) { c.Warmup = -1 },
		"--interval":     func(c *Config) { c.Interval = time.Microsecond },
		"--sample":       func(c *Config) { c.Sample = 3 },
		"--rate":         func(c *Config) { c.Workload, c.Rate = Idle, 5 },
		"--max-lateness": func(c *Config) { c.MaxLateness = -1 },
		"one way":        func(c *Config) { c.Workload, c.At = OneWay, []Fault{{Kind: StallReaders, For: 1}} },
		"--at":           func(c *Config) { c.At = []Fault{{At: time.Hour, Kind: StallReaders, For: 1}} },
	} {
		c := base()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestQueue(t *testing.T) {
	q := newQueue()
	for i := range int64(5) {
		if !q.push(newItem(i, reason(i))) {
			t.Fatal("no room")
		}
	}
	batch := q.take()
	if len(batch) != 5 || batch[4].due() != 4 || batch[0].why() != 0 || batch[3].why() != mailbox || batch[3].withReason(credit).why() != mailbox || batch[0].withReason(credit).why() != credit {
		t.Errorf("took %v", batch)
	}
	for i := range int64(backlog) {
		q.push(newItem(i, 0))
	}
	if q.push(newItem(0, 0)) {
		t.Error("the backlog has no bound")
	}
	q.close()
	if n := len(q.take()); n != backlog {
		t.Errorf("%d left at the end", n)
	}
	if len(q.take()) != 0 {
		t.Error("something after the end")
	}
}
