package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/sluicerpc/sluice"

// A source is one Go file.
type source struct {
	path  string // from the root, with slashes
	dir   string
	test  bool
	lines int
	ast   *ast.File
}

// helper reports whether the file is there for tests only.
func (s *source) helper() bool {
	_, ok := helpers[s.dir]
	return s.test || ok
}

func (s *source) functions() (found []*ast.FuncDecl) {
	for _, d := range s.ast.Decls {
		if fd, ok := d.(*ast.FuncDecl); ok {
			found = append(found, fd)
		}
	}
	return found
}

// A tree is a module's Go files, or those of several modules.
type tree struct {
	fset  *token.FileSet
	files []*source
}

func newTree() *tree { return &tree{fset: token.NewFileSet()} }

func (tr *tree) add(name string, text []byte) error {
	f, err := parser.ParseFile(tr.fset, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	if ast.IsGenerated(f) {
		return nil // nobody reads it, and nobody can change it
	}
	tr.files = append(tr.files, &source{
		path:  name,
		dir:   path.Dir(name),
		test:  strings.HasSuffix(name, "_test.go"),
		lines: strings.Count(string(text), "\n"),
		ast:   f,
	})
	return nil
}

// production returns what a user's program can contain.
func (tr *tree) production() []*source {
	var out []*source
	for _, s := range tr.files {
		if !s.helper() {
			out = append(out, s)
		}
	}
	return out
}

// library returns the part of production that is not a command.
func (tr *tree) library() []*source {
	var out []*source
	for _, s := range tr.production() {
		if s.ast.Name.Name != "main" {
			out = append(out, s)
		}
	}
	return out
}

func (tr *tree) lines(n ast.Node) int {
	return tr.fset.Position(n.End()).Line - tr.fset.Position(n.Pos()).Line + 1
}

// at gives a place as path:line.
func (tr *tree) at(n ast.Node) string {
	p := tr.fset.Position(n.Pos())
	return path.Clean(p.Filename) + ":" + itoa(p.Line)
}

// root finds the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// load reads the root module.
func load(t *testing.T) *tree {
	t.Helper()
	return read(t, false)
}

// loadAll reads the root module and the modules inside it.
func loadAll(t *testing.T) *tree {
	t.Helper()
	return read(t, true)
}

func read(t *testing.T, nested bool) *tree {
	t.Helper()
	base := root(t)
	tr := newTree()
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(base, p, d.Name(), nested)
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, p)
		if err != nil {
			return err
		}
		return tr.add(filepath.ToSlash(rel), text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// enter decides whether the files of a directory are read.
func enter(base, p, name string, nested bool) error {
	if p == base {
		return nil
	}
	if name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && !nested {
		return filepath.SkipDir
	}
	return nil
}

// functionName gives a function as Name, T.Name or (*T).Name.
func functionName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		return "(*" + baseName(star.X) + ")." + d.Name.Name
	}
	return baseName(typ) + "." + d.Name.Name
}

// baseName drops a receiver's type parameters.
func baseName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr:
		return baseName(e.X)
	case *ast.IndexListExpr:
		return baseName(e.X)
	}
	return "?"
}

// inFunctions calls visit for every node, with the name of the function that
// it is in, or "var" outside of all.
func inFunctions(f *ast.File, visit func(function string, n ast.Node)) {
	for _, d := range f.Decls {
		name := "var"
		if fd, ok := d.(*ast.FuncDecl); ok {
			name = functionName(fd)
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if n != nil {
				visit(name, n)
			}
			return true
		})
	}
}

// selector splits pkg.Name; both are empty for anything else.
func selector(e ast.Expr) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if id, ok := sel.X.(*ast.Ident); ok {
		return id.Name, sel.Sel.Name
	}
	return "", sel.Sel.Name
}
