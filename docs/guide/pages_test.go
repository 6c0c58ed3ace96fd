package guide_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's.
const root = "../.."

// A block is what stands between two fences of a page.
type block struct {
	language string
	text     string
}

// file is the name of the file that the block is, "" if it is a piece of one. A file says
// so in its first line.
func (b *block) file() string {
	if m := regexp.MustCompile(`^// (\S+\.go)\n`).FindStringSubmatch(b.text); m != nil {
		return m[1]
	}
	return ""
}

var fences = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns the blocks of a page, in their order.
func blocks(t *testing.T, page string) (found []block) {
	t.Helper()
	for _, m := range fences.FindAllStringSubmatch(readPage(t, page), -1) {
		found = append(found, block{m[1], m[2]})
	}
	return found
}

// glob returns the files whose names match, from the root.
func glob(t *testing.T, pattern string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		rel, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.ToSlash(rel))
	}
	return names
}

// withCode are the pages whose Go is compiled.
func withCode(t *testing.T) []string {
	return append(glob(t, "docs/guide/*.md"), readmePage, startPage, "docs/interop.md", "docs/glossary.md", "docs/operations.md", "docs/admin.md")
}

// TestPiecesAreCompiled: what a page shows of a Go file stands in one of this package,
// line for line; it may be indented there.
func TestPiecesAreCompiled(t *testing.T) {
	var sources []string
	for _, name := range glob(t, "docs/guide/*_test.go") {
		sources = append(sources, readPage(t, name))
	}
	pieces := 0
	for _, page := range withCode(t) {
		for _, b := range blocks(t, page) {
			if b.language != "go" || b.file() != "" {
				continue
			}
			pieces++
			if !slices.ContainsFunc(sources, func(s string) bool { return holds(s, b.text) }) {
				t.Errorf("%s: in no file of this package:\n%s", page, b.text)
			}
		}
	}
	if pieces < 40 {
		t.Errorf("only %d pieces", pieces)
	}
}

// holds reports whether the lines of piece follow each other in source, all indented alike.
func holds(source, piece string) bool {
	lines := strings.Split(source, "\n")
	want := strings.Split(strings.TrimRight(piece, "\n"), "\n")
	for i := range lines[:max(len(lines)-len(want)+1, 0)] {
		indent, ok := strings.CutSuffix(lines[i], want[0])
		if ok && strings.Trim(indent, "\t") == "" && sameLines(lines[i:], want, indent) {
			return true
		}
	}
	return false
}

func sameLines(lines, want []string, indent string) bool {
	for i, w := range want {
		if w != "" {
			w = indent + w
		}
		if lines[i] != w {
			return false
		}
	}
	return true
}

func TestHoldsComparesLines(t *testing.T) {
	const source = "func f() {\n\tif a {\n\t\tb()\n\n\t\tc()\n\t}\n}\n"
	for piece, want := range map[string]bool{
		source:                            true,
		"if a {\n\tb()\n\n\tc()\n}\n":     true,
		"b()\n\nc()\n":                    true,
		"b()\nc()\n":                      false,
		"b()\n\nc() // not there\n":       false,
		"a {\n\tb()\n":                    false,
		"c()\n}\n":                        false,
		"func f() {\n\tif a {\n\t\tb()\n": true,
	} {
		if holds(source, piece) != want {
			t.Errorf("%q: not %v", piece, want)
		}
	}
}

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notSlug  = regexp.MustCompile("[^a-z0-9 _-]")
)

// anchors are what a link to a page may have behind its #.
func anchors(page string) (found []string) {
	for _, m := range headings.FindAllStringSubmatch(fences.ReplaceAllString(page, ""), -1) {
		slug := notSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(slug, " ", "-"))
	}
	return found
}

// TestLinks: what a page links to exists, down to the heading.
func TestLinks(t *testing.T) {
	pages := slices.Concat(glob(t, "*.md"), glob(t, "docs/*.md"), glob(t, "docs/*/*.md"))
	n := 0
	for _, page := range pages {
		for _, m := range links.FindAllStringSubmatch(fences.ReplaceAllString(readPage(t, page), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			n++
			to, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if to != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), to))
			}
			_, err := os.Stat(filepath.Join(root, target))
			if err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			} else if anchor != "" && !slices.Contains(anchors(readPage(t, target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d links", n)
	}
}

// TestCommandsExist: the programs that the README runs from a clone exist.
func TestCommandsExist(t *testing.T) {
	runs := regexp.MustCompile(`go run (\./\S+)`).FindAllStringSubmatch(readPage(t, readmePage), -1)
	n := 0
	for _, m := range runs {
		for _, dir := range []string{".", "benchmarks"} {
			if _, err := os.Stat(filepath.Join(root, dir, m[1])); err == nil {
				n++
				break
			}
		}
	}
	if n != len(runs) || n != 2 {
		t.Errorf("%d of %d programs exist, want 2", n, len(runs))
	}
}

// TestGlossaryIsLinked: each page of the guide leads to the glossary and to its overview.
func TestGlossaryIsLinked(t *testing.T) {
	for _, page := range append(glob(t, "docs/guide/*.md"), readmePage, startPage) {
		if !strings.Contains(readPage(t, page), "glossary.md") {
			t.Errorf("%s has no link to the glossary", page)
		}
	}
	overview := readPage(t, "docs/guide/README.md")
	for _, page := range glob(t, "docs/guide/*.md") {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(overview, "]("+name+")") {
			t.Errorf("the guide's overview has no link to %s", name)
		}
	}
}
