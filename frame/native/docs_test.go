package native

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

const page = "../../docs/wire.md"

// examples are the bytes that docs/wire.md shows.
func examples() map[string]string {
	m := map[string]string{}
	for i := range controls {
		w, _ := pair(false)
		b := written(w, func(o *frame.Out) { w.Control(o, &controls[i].frame) })
		m[controls[i].name] = controls[i].name + "\n\n" + hexLines(b)
	}
	m["stop"] = strings.Replace(m["stop"], "stop", "stop with code 0", 1)
	w, _ := pair(false)
	data := hexLines(written(w, func(o *frame.Out) { w.Message(o, 1, messageOf("abcdef")) }))
	for _, cut := range [][2]int{{0, 2}, {2, 3}, {5, 1}} {
		data += "\n" + hexLines(written(w, func(o *frame.Out) { fragment(w, o, 1, messageOf("abcdef"), cut[0], cut[1]) }))
	}
	m["data"] = data
	m["compressed"] = hexLines(written(w, func(o *frame.Out) { w.Message(o, 1, letters()) }))
	m["start"] = hexLines(greet(&controls[0].frame))
	c, _ := pair(true)
	m["record"] = hexLines(written(c, func(o *frame.Out) { c.Message(o, 1, messageOf("abcdef")) }))
	call := ""
	for _, one := range conversations[0].steps {
		from := "client"
		if one.server {
			from = "server"
		}
		w, _ := pair(false)
		call += from + "\n" + hexLines(written(w, func(o *frame.Out) { one.put(w, o) })) + "\n"
	}
	m["call"] = strings.TrimSuffix(call, "\n")
	return m
}

// codes is the table of codes.
func codes() string {
	var b strings.Builder
	b.WriteString("| number | name | | number | name |\n|---|---|---|---|---|\n")
	var cs []status.Code
	for c := range status.Code(256) {
		if !strings.HasPrefix(c.String(), "CODE_") {
			cs = append(cs, c)
		}
	}
	half := (len(cs) + 1) / 2
	for i := range half {
		fmt.Fprintf(&b, "| %d | %s | | ", cs[i], cs[i])
		if i+half < len(cs) {
			fmt.Fprintf(&b, "%d | %s |\n", cs[i+half], cs[i+half])
		} else {
			b.WriteString("| |\n")
		}
	}
	return b.String()
}

var (
	exampleMark = regexp.MustCompile("(?m)^<!-- example: (.*) -->\n(?:```\n(?:[^`]*\n)?```\n)?")
	codesMark   = regexp.MustCompile(`(?m)^<!-- codes -->\n(?:\|.*\n)*`)
)

// The page's examples and its table of codes are what the code makes; -rewrite
// puts them in.
func TestThePageShowsWhatTheCodeMakes(t *testing.T) {
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	made := examples()
	now := exampleMark.ReplaceAllStringFunc(string(old), func(s string) string {
		name := exampleMark.FindStringSubmatch(s)[1]
		text, ok := made[name]
		if !ok {
			t.Errorf("no such example: %q", name)
		}
		return "<!-- example: " + name + " -->\n```\n" + text + "```\n"
	})
	now = codesMark.ReplaceAllLiteralString(now, "<!-- codes -->\n"+codes())
	if *rewrite {
		if err := os.WriteFile(page, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if now != string(old) {
		t.Error("docs/wire.md shows other bytes than the code makes: run the test with -rewrite and look at the change")
	}
	for i := range controls {
		if !strings.Contains(now, "<!-- example: "+controls[i].name+" -->") {
			t.Errorf("the page does not show %q", controls[i].name)
		}
	}
}

// Every rule of the page has its number, in order, and names tests that exist,
// down to the rows of their tables.
func TestEveryRuleNamesItsTests(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rules := regexp.MustCompile(`(?m)^\| \*\*M(\d+)\*\* \| (.*) \| ([^|]*) \|$`).FindAllStringSubmatch(string(text), -1)
	if len(rules) < 50 || len(rules) != strings.Count(string(text), "\n| **M") {
		t.Fatalf("%d rules have the form of one", len(rules))
	}
	tests := testFiles(t)
	for i, rule := range rules {
		if rule[1] != fmt.Sprint(i+1) {
			t.Errorf("rule %d is called M%s", i+1, rule[1])
		}
		cited := regexp.MustCompile("`((?:Test|Fuzz)[^`]*)`").FindAllStringSubmatch(rule[3], -1)
		if len(cited) == 0 {
			t.Errorf("M%s names no test", rule[1])
		}
		for _, c := range cited {
			if err := exists(tests, c[1]); err != nil {
				t.Errorf("M%s: %v", rule[1], err)
			}
		}
	}
}

// testFiles reads the tests of the whole module.
func testFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*_test.go", "../*_test.go", "../../*/*_test.go", "../../*/*/*_test.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // being replaced
			}
			files = append(files, string(b))
		}
	}
	return files
}

// exists finds Test or Test/row, a row by how its name begins.
func exists(files []string, name string) error {
	test, row, has := strings.Cut(name, "/")
	i := slices.IndexFunc(files, func(f string) bool { return strings.Contains(f, "func "+test+"(") })
	if i < 0 {
		return fmt.Errorf("there is no %s", test)
	}
	if !has {
		return nil
	}
	// Rows may be in a table before their test.
	if !regexp.MustCompile(`\{(?:name: )?"` + regexp.QuoteMeta(row) + `[^"]*"`).MatchString(files[i]) {
		return fmt.Errorf("%s has no row %q", test, row)
	}
	return nil
}
