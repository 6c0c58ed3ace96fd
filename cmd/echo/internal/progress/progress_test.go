package progress

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A line of its own each time, or one that is drawn over.
func TestALine(t *testing.T) {
	for live, want := range map[bool]string{
		false: " 25 %     1.0 MiB    500 MB/s  more\n",
		true:  "\r\x1b[?7l[===         ]  25 %     1.0 MiB    500 MB/s  more\x1b[K\x1b[?7h",
	} {
		var out bytes.Buffer
		b := &Bar{w: &out, live: live, total: 4 << 20, status: func() (int64, string) { return 1 << 20, "more" }}
		b.show(500)
		if out.String() != want {
			t.Errorf("live %v: %q, want %q", live, out.String(), want)
		}
	}
}

func TestNothingToDoIsDone(t *testing.T) {
	var out bytes.Buffer
	b := &Bar{w: &out, status: func() (int64, string) { return 0, "" }}
	b.show(0)
	if !strings.HasPrefix(out.String(), "100 %") {
		t.Errorf("%q", out.String())
	}
}

func TestALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var done atomic.Int64
		b := Start(&out, 10e6, func() (int64, string) { return done.Load(), "" })
		for range 3 {
			time.Sleep(time.Second)
			synctest.Wait()
			done.Add(2e6)
		}
		b.Stop()
		if text := out.String(); strings.Count(text, "\n") != 3 || strings.Count(text, "    2 MB/s") != 2 {
			t.Errorf("want three lines, two of them with 2 MB/s:\n%s", text)
		}
	})
}
