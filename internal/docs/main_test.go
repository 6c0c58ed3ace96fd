package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// root is the repository's.
const root = "../.."

// readPage returns a file, by its name from the root.
func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tables returns the rows of the tables of a page between <!-- name --> and <!-- end -->,
// without their heads.
func tables(t *testing.T, page, name string) (rows [][]string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?s)<!-- `+name+` -->\n(.*?)<!-- end -->`).FindAllStringSubmatch(page, -1) {
		for i, line := range strings.Split(strings.TrimSpace(m[1]), "\n") {
			if i < 2 { // head and rule
				continue
			}
			row := strings.Split(strings.Trim(line, "| "), " | ")
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no table %q", name)
	}
	return rows
}

var span = regexp.MustCompile("`([^`\n]+)`")

// spans returns what stands in backquotes in a cell.
func spans(cell string) (found []string) {
	for _, m := range span.FindAllStringSubmatch(cell, -1) {
		found = append(found, m[1])
	}
	return found
}
