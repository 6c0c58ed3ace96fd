package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// locksDoc has the table of locks.
const locksDoc = "docs/architecture.md"

func TestLocks(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), locksDoc))
	if err != nil {
		t.Fatal(err)
	}
	report(t, checkLocks(load(t), string(text)))
}

// checkLocks compares the mutexes in the code with the table of locks.
func checkLocks(tr *tree, doc string) (bad []string) {
	listed := lockTable(doc)
	if len(listed) == 0 {
		return []string{locksDoc + ": no table with the heading | lock |"}
	}
	locks := findLocks(tr)
	for _, l := range locks {
		if !slices.Contains(listed, l.name) {
			bad = append(bad, fmt.Sprintf("%s: add `%s` to the table of locks in %s, at its place in the order", l.at, l.name, locksDoc))
		}
	}
	for i, name := range listed {
		switch {
		case slices.Contains(listed[:i], name):
			bad = append(bad, fmt.Sprintf("%s: `%s` is in the table of locks twice", locksDoc, name))
		case !slices.ContainsFunc(locks, func(l lock) bool { return l.name == name }):
			bad = append(bad, fmt.Sprintf("%s: take `%s` out of the table of locks, or rename it: no such lock is in the code", locksDoc, name))
		}
	}
	return bad
}

// A lock is a mutex or something made of them, like a slice.
type lock struct {
	name string // package.Type.field, or whatever else is around it
	at   string
}

// findLocks lists the mutexes of production code, without what is there for tests. A
// pointer to a mutex is not one.
func findLocks(tr *tree) (locks []lock) {
	for _, s := range tr.production() {
		if _, forTests := helpers[s.dir]; forTests {
			continue
		}
		ast.PreorderStack(s.ast, nil, func(n ast.Node, around []ast.Node) bool {
			e, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, name := selector(e)
			_, pointer := around[len(around)-1].(*ast.StarExpr)
			if pkg != "sync" || name != "Mutex" && name != "RWMutex" || pointer {
				return true
			}
			for _, name := range namesAround(around, name) {
				locks = append(locks, lock{path.Base(s.dir) + "." + name, tr.at(e)})
			}
			return true
		})
	}
	return locks
}

// namesAround joins the names of what a mutex is declared in. One declaration
// can have several names; an embedded mutex is a field with its type's name.
func namesAround(around []ast.Node, embedded string) []string {
	names := []string{""}
	in := func(ids ...*ast.Ident) {
		var longer []string
		for _, name := range names {
			for _, id := range ids {
				longer = append(longer, strings.TrimPrefix(name+"."+id.Name, "."))
			}
		}
		names = longer
	}
	for _, n := range around {
		switch n := n.(type) {
		case *ast.FuncDecl:
			in(n.Name)
		case *ast.TypeSpec:
			in(n.Name)
		case *ast.ValueSpec:
			in(n.Names...)
		case *ast.Field:
			if len(n.Names) == 0 {
				in(ast.NewIdent(embedded))
			} else {
				in(n.Names...)
			}
		}
	}
	return names
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// lockTable returns the names in the first column of the table of locks.
func lockTable(doc string) (names []string) {
	_, table, _ := strings.Cut(doc, "\n| lock |")
	for _, row := range strings.Split(table, "\n")[1:] {
		if !strings.HasPrefix(row, "|") {
			break
		}
		for _, m := range codeSpan.FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			names = append(names, m[1])
		}
	}
	return names
}
