package leak

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	_ "github.com/panjf2000/gnet/v2" // for the goroutines that importing it starts
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	patience = 2 * time.Second // here something is left on purpose
	Main(m)
}

func TestGnetStartsWhatTheListSays(t *testing.T) {
	for _, f := range []string{"purgeStaleWorkers", "ticktock"} {
		if !runs("(*poolCommon)." + f) {
			t.Errorf("no goroutine in %s: take it off the list", f)
		}
	}
	if err := goleak.Find(Allowed()...); err != nil {
		t.Errorf("the list is not complete: %v", err)
	}
}

// runs reports whether a goroutine is in the function. One that was started a
// moment ago may not have got there yet.
func runs(function string) bool {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if n := runtime.Stack(stacks, true); strings.Contains(string(stacks[:n]), function+"(") {
			return true
		}
	}
	return false
}

func TestALeftOverGoroutineIsFound(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	go func() { <-stop }()
	if err := goleak.Find(append(Allowed(), goleak.IgnoreCurrent())...); err != nil {
		t.Fatalf("found a goroutine that it was told to ignore: %v", err)
	}
	if goleak.Find(Allowed()...) == nil {
		t.Error("a blocked goroutine was not found")
	}
}

func TestALeftOverDescriptorIsFound(t *testing.T) {
	onLinux(t)
	if err := startPoller(); err != nil {
		t.Fatal(err)
	}
	before := count(t)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if got := growth(before, count(t)); got != "1 more socket" {
		t.Errorf("with a listener open: %q, want 1 more socket", got)
	}
	ln.Close()
	if got := settle(before); got != "" {
		t.Errorf("with the listener closed: %q", got)
	}

	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := growth(before, count(t)); got != "1 more file" {
		t.Errorf("with a file open: %q, want 1 more file", got)
	}
}

// A recorder stands in for a test and keeps what is said to it.
type recorder struct {
	testing.TB
	cleanups []func()
	failed   bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestDescriptorsFailsTheTest(t *testing.T) {
	onLinux(t)
	for _, leave := range []bool{true, false} {
		r := &recorder{TB: t}
		Descriptors(r)
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if !leave {
			f.Close()
		}
		for _, c := range r.cleanups {
			c()
		}
		f.Close()
		if r.failed != leave {
			t.Errorf("file left open %v, test failed %v", leave, r.failed)
		}
	}
}

func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("descriptors can be listed on Linux only")
	}
}

func count(t *testing.T) map[string]int {
	t.Helper()
	n, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
