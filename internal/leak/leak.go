// Package leak keeps tests honest about what they leave behind: goroutines and
// descriptors.
package leak

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long what a test has closed may take to disappear.
var patience = 20 * time.Second

const fdDir = "/proc/self/fd"

// Main runs a package's tests and fails if goroutines are left over. Call it
// from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := gone(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left over:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// gone waits until nothing but what is allowed runs: goleak itself waits for less than
// half a second.
func gone() error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find(Allowed()...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Allowed returns the goroutines that nobody can stop: those that importing
// gnet starts, by way of its worker pool, and the pool's idle workers. A
// worker in the middle of a job has another function on top and still counts.
func Allowed() []goleak.Option {
	const pool = "github.com/panjf2000/ants/v2."
	return []goleak.Option{
		goleak.IgnoreTopFunction(pool + "(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction(pool + "(*poolCommon).ticktock"),
		goleak.IgnoreTopFunction(pool + "(*goWorker).run.func1"),
	}
}

// Descriptors records the open descriptors and checks, when the test and its
// other cleanups are over, that there are no more than now of any kind. So
// call it first. A test that uses it must not run in parallel with others.
// Where the system does not list descriptors it only logs that it cannot look.
func Descriptors(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Logf("descriptors are not counted on %s", runtime.GOOS)
		return
	}
	if err := startPoller(); err != nil {
		t.Fatal(err)
	}
	before, err := kinds()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if diff := settle(before); diff != "" {
			t.Errorf("descriptors left open: %s", diff)
		}
	})
}

// settle waits until no kind has more descriptors than before, and returns
// what is too much when patience has run out.
func settle(before map[string]int) string {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		now, err := kinds()
		if err != nil {
			return err.Error()
		}
		diff := growth(before, now)
		if diff == "" || time.Now().After(deadline) {
			return diff
		}
	}
}

// growth says which kinds there are more of.
func growth(before, now map[string]int) string {
	var more []string
	for _, kind := range slices.Sorted(maps.Keys(now)) {
		if n := now[kind] - before[kind]; n > 0 {
			more = append(more, fmt.Sprintf("%d more %s", n, kind))
		}
	}
	return strings.Join(more, ", ")
}

// kinds counts the open descriptors by what they are.
func kinds() (map[string]int, error) {
	entries, err := os.ReadDir(fdDir)
	if err != nil {
		return nil, err
	}
	n := make(map[string]int)
	for _, e := range entries {
		target, err := os.Readlink(fdDir + "/" + e.Name())
		if err != nil {
			continue // gone meanwhile: the one that reads the directory
		}
		n[kind(target)]++
	}
	return n, nil
}

// startPoller makes the runtime open its own epoll descriptor and eventfd,
// which it does once and keeps, so that they belong to the baseline.
func startPoller() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	return errors.Join(r.Close(), w.Close())
}

// kind turns "socket:[4711]" into "socket"; a path is a file.
func kind(target string) string {
	name, _, found := strings.Cut(target, ":")
	switch {
	case !found:
		return "file"
	case name == "anon_inode":
		return strings.TrimPrefix(target, "anon_inode:")
	default:
		return name
	}
}
