package arch

import (
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	report(t, checkPackageLines(load(t), packageLines))
	report(t, checkPercentiles(functionSizes(load(t))))
}

// TestGoVersions compares the versions of Go that the pages ask for with those of the modules:
// the README's is for the library, and who runs the benchmarks needs another one.
func TestGoVersions(t *testing.T) {
	text := func(name string) string {
		p, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	version := func(mod string) string {
		m := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(text(mod))
		if m == nil {
			t.Fatalf("%s names no version of Go", mod)
		}
		return "Go " + m[1]
	}
	library, benchmarks := version("go.mod"), version("benchmarks/go.mod")
	for name, want := range map[string][]string{
		"README.md":       {library},
		"CONTRIBUTING.md": {library + " or newer", "benchmarks " + benchmarks},
	} {
		for _, w := range want {
			if !strings.Contains(text(name), w) {
				t.Errorf("%s does not say %q", name, w)
			}
		}
	}
}

// leastGo is the Go that programs need which use the library: the older of the two releases that
// Go supports. An update of a requirement can raise it unnoticed.
const leastGo = "1.25.0"

// netVersion is the newest golang.org/x/net that leastGo builds: v0.59.0 asks for Go 1.26.
const netVersion = "v0.58.0"

func TestTheLibraryAsksForNoNewerGo(t *testing.T) {
	p, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^go (.*)$`).FindSubmatch(p); m == nil || string(m[1]) != leastGo {
		t.Errorf("go.mod says %q, want go %s", m, leastGo)
	}
	if m := regexp.MustCompile(`(?m)^toolchain .*$`).Find(p); m != nil {
		t.Errorf("go.mod says %q: programs would download that", m)
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}} {{.GoVersion}}", "all")
	list.Dir, list.Env = root(t), append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := ""
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), " ")
		if f[0] == "golang.org/x/net" {
			seen = f[1]
		}
		if needs := "go" + f[len(f)-1]; version.IsValid(needs) && version.Compare(needs, "go"+leastGo) > 0 {
			t.Errorf("%s %s asks for %s", f[0], f[1], needs)
		}
	}
	if seen != netVersion {
		t.Errorf("golang.org/x/net is %q, the newest that Go %s builds is %s", seen, leastGo, netVersion)
	}
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
