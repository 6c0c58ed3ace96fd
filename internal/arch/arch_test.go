package arch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func report(t *testing.T, bad []string) {
	t.Helper()
	for _, b := range bad {
		t.Error(b)
	}
}

func TestImports(t *testing.T)   { report(t, checkImports(load(t))) }
func TestDocs(t *testing.T)      { report(t, checkDocs(load(t))) }
func TestState(t *testing.T)     { report(t, checkState(load(t))) }
func TestBans(t *testing.T)      { report(t, checkBans(load(t))) }
func TestTestShare(t *testing.T) { report(t, checkTestShare(load(t))) }
func TestLeaks(t *testing.T)     { report(t, checkLeaks(load(t))) }
func TestSpawns(t *testing.T)    { report(t, checkSpawns(load(t), spawns)) }

// TestSizes looks at the modules inside the root module too.
func TestSizes(t *testing.T) {
	report(t, checkSizes(loadAll(t)))
	report(t, checkPercentiles(functionSizes(load(t))))
}

// TestWords reads what is tracked, and has nothing to say about a tree that
// did not come out of version control.
func TestWords(t *testing.T) {
	dir := root(t)
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("cannot list the tracked files: %v", err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		report(t, checkWords(name, text))
	}
}
