package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every make target that a page names is there.
func TestMakeTargets(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, page := range pages {
		names = append(names, filepath.Join("docs", filepath.Base(page)))
	}
	makefile, found := "\n"+readPage(t, "Makefile"), 0
	for _, name := range names {
		for _, m := range regexp.MustCompile("`make ([a-z]+)[ `]").FindAllStringSubmatch(readPage(t, name), -1) {
			found++
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: there is no make %s", name, m[1])
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d targets are named", found)
	}
}

// The page shows the build that make does.
func TestReleaseBuild(t *testing.T) {
	m := regexp.MustCompile(`(?m)^RELEASE_BUILD = (.*)$`).FindStringSubmatch(readPage(t, "Makefile"))
	if m == nil || !strings.Contains(readPage(t, "docs/release.md"), "\n"+m[1]+" -o bin/echo ./cmd/echo\n") {
		t.Errorf("docs/release.md does not show %q", m)
	}
	for _, flag := range []string{"-trimpath", "-buildvcs=false", "CGO_ENABLED=0"} {
		if m != nil && !strings.Contains(m[1], flag) {
			t.Errorf("the build lacks %s", flag)
		}
	}
}
