package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestDemoChecksGeneratedData(t *testing.T) {
	r := runEcho(t, "", "demo", "-size", "20M", "-seed", "3")
	r.wantOK(t)
	for _, want := range []string{
		`20\.0 MiB echoed on 4 streams`, `all of it came back intact`, `bytes +20,971,520\n`,
		`messages +\d+ of 1 B`, `rate +[\d.]+ MB/s`, `ping +p50 \S+, p99 \S+ \(\d+ pings of 64 B\)`, `stalls +[\d,]+ sends`,
	} {
		if !regexp.MustCompile(want).MatchString(r.stdout) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
}

func TestDemoSendsAFile(t *testing.T) {
	for name, size := range map[string]int{"of 3 MB": 3_000_001, "of a byte": 1, "that is empty": 0} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, generated(9).bytes(size), 0o600); err != nil {
				t.Fatal(err)
			}
			r := runEcho(t, "", "demo", "-streams", "3", file)
			r.wantOK(t)
			if !regexp.MustCompile(`bytes +` + grouped(int64(size)) + `\n`).MatchString(r.stdout) {
				t.Errorf("not %d bytes:\n%s", size, r.stdout)
			}
		})
	}
}

func TestDemoCanBeInterrupted(t *testing.T) {
	needSignals(t)
	p := start(t, "demo", "-size", "1000G")
	p.wantLine("echoed on")
	p.signal(os.Interrupt)
	r := p.end()
	// There may have been lines of progress before.
	lines := strings.SplitAfter(strings.TrimSpace(r.stderr), "\n")
	r.stderr = lines[len(lines)-1]
	r.wantError(t, exitFailed, "^echo demo: interrupted$")
	if strings.Contains(r.stdout, "intact") {
		t.Errorf("it says that all is well: %s", r.stdout)
	}
}

// TestProgress: a line of its own each time, or one that is drawn over.
func TestProgress(t *testing.T) {
	d := &demonstration{total: 4 << 20}
	d.bytes.Store(1 << 20)
	d.messages.Store(1234)
	d.pings.add(81_234 * time.Nanosecond)
	for live, want := range map[bool]string{
		false: " 25 %     1.0 MiB    500 MB/s  1,234 messages  ping 81µs  0 stalls\n",
		true: "\r\x1b[?7l[===         ]  25 %     1.0 MiB    500 MB/s  1,234 messages  ping 81µs  0 stalls" +
			"\x1b[K\x1b[?7h",
	} {
		var out bytes.Buffer
		p := &progress{d: d, w: &out, live: live}
		p.show(d.bytes.Load(), 500)
		if out.String() != want {
			t.Errorf("live %v: %q, want %q", live, out.String(), want)
		}
	}
}

func TestPingQuantiles(t *testing.T) {
	var p pings
	if p.quantile(0.5) != 0 || p.last() != 0 {
		t.Error("there was no ping, and it took time")
	}
	for i := 100; i >= 1; i-- {
		p.add(time.Duration(i))
	}
	if a, b, c := p.quantile(0.50), p.quantile(0.99), p.last(); a != 51 || b != 100 || c != 1 {
		t.Errorf("p50 %d, p99 %d, last %d", a, b, c)
	}
}
