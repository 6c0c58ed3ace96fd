package figures

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestPingQuantiles(t *testing.T) {
	if quantile(nil, 0.5) != 0 {
		t.Error("there was no ping, and it took time")
	}
	var took []time.Duration
	for i := 100; i >= 1; i-- {
		took = append(took, time.Duration(i)*time.Microsecond)
	}
	if a, b := quantile(took, 0.50), quantile(took, 0.99); a != 51*time.Microsecond || b != 100*time.Microsecond {
		t.Errorf("p50 %v, p99 %v", a, b)
	}
}

func TestFiguresArePrinted(t *testing.T) {
	var f Figures
	end := f.Begin()
	f.Messages.Add(1234)
	f.Bytes.Add(5_000_000)
	f.Stalls.Add(7)
	f.Ping(time.Second)
	f.Ping(81_234 * time.Nanosecond)
	if done, more := f.Status(); done != 5_000_000 || more != "1,234 messages  ping 81µs  7 stalls" {
		t.Errorf("status: %d bytes, %q", done, more)
	}
	end()
	f.took = 2 * time.Second
	var line, table strings.Builder
	if err := f.Line(&line, 3); err != nil {
		t.Error(err)
	}
	if want := "1,234 messages, 5,000,000 bytes on 3 streams came back intact in 2.00 s: 2.5 MB/s, 617 messages/s, 7 stalls for credit\n"; line.String() != want {
		t.Errorf("line %q, want %q", line.String(), want)
	}
	if err := f.Table(&table, 1<<20, 64); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`messages +1,234 of 1 B to 1\.0 MiB`, `bytes +5,000,000`, `rate +2\.5 MB/s`, `p50 1s, p99 1s \(2 pings of 64 B\)`, `stalls +7 `} {
		if !regexp.MustCompile(want).MatchString(table.String()) {
			t.Errorf("no %q in:\n%s", want, table.String())
		}
	}
}
