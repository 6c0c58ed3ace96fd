package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/data"
	"github.com/sluicerpc/sluice/cmd/echo/internal/units"
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
			if err := os.WriteFile(file, generated(t, size), 0o600); err != nil {
				t.Fatal(err)
			}
			r := runEcho(t, "", "demo", "-streams", "3", file)
			r.wantOK(t)
			if !regexp.MustCompile(`bytes +` + units.Grouped(int64(size)) + `\n`).MatchString(r.stdout) {
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
	r.wantError(t, cli.ExitInterrupted, "^echo demo: interrupted$")
	if strings.Contains(r.stdout, "intact") {
		t.Errorf("it says that all is well: %s", r.stdout)
	}
}

// generated returns n bytes.
func generated(t *testing.T, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := data.Generated(7).ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
