package proc

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sink [][]byte

func TestReadSeesWorkDone(t *testing.T) {
	before := Read()
	for range 1000 {
		sink = append(sink, make([]byte, 10_000))
	}
	for end := time.Now().Add(10 * time.Second); Read().CPU() < before.CPU()+0.03 && time.Now().Before(end); {
	}
	runtime.GC()
	for range 20 {
		_, _ = os.ReadFile(filepath.Join("proc.go"))
	}
	after := Read()
	if d := after.CPU() - before.CPU(); d < 0.02 || d > 5 {
		t.Errorf("CPU %v s, want about 0.05", d)
	}
	if d := after.AllocBytes - before.AllocBytes; d < 10_000_000 {
		t.Errorf("%d bytes allocated, want 10 MB", d)
	}
	if after.Allocs-before.Allocs < 1000 || after.GCs == before.GCs || after.Goroutines == 0 || after.LiveBytes < 10_000_000 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if runtime.GOOS != "linux" {
		return
	}
	if after.RSS < 1<<20 || after.PeakRSS < after.RSS/2 {
		t.Errorf("RSS %d, peak %d", after.RSS, after.PeakRSS)
	}
	if _, err := os.ReadFile("/proc/self/io"); err == nil && after.ReadCalls-before.ReadCalls < 20 {
		t.Errorf("%d read calls, want 20 or more", after.ReadCalls-before.ReadCalls)
	}
	sink = nil
}

func TestAdmin(t *testing.T) {
	a := &Admin{Library: func() map[string]float64 { return map[string]float64{"blocked": 2} }}
	a.Serving.Store(7)
	if err := a.Serve("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s := NewSource(a.Addr())
	defer s.Close()
	gcs := Read().GCs
	st, err := s.Fetch(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if st.Streams != 7 || st.Library["blocked"] != 2 || st.GCs < gcs+2 || st.CPU() == 0 {
		t.Errorf("got %+v", st)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Fetch(t.Context(), false); err == nil || !strings.Contains(err.Error(), "server's figures") {
		t.Errorf("after Close: %v", err)
	}
}
