package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program is a package with its types. Tests are not in it.
type program struct {
	fset  *token.FileSet
	files []*ast.File
	pkg   *types.Package
	info  *types.Info
}

// typecheck finds what every name in the files stands for.
func typecheck(fset *token.FileSet, dir string, files []*ast.File, imports types.Importer) (*program, error) {
	p := &program{fset: fset, files: files, info: &types.Info{
		Defs: map[*ast.Ident]types.Object{},
		Uses: map[*ast.Ident]types.Object{},
	}}
	var err error
	p.pkg, err = (&types.Config{Importer: imports}).Check(module+"/"+dir, fset, files, p.info)
	return p, err
}

// listed is what the go command says about a package.
type listed struct {
	ImportPath string
	Dir        string
	Export     string // the file with the types of what it exports
	GoFiles    []string
}

// exists reports whether dir is a directory of the root module.
func exists(t *testing.T, dir string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(root(t), dir))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// loadPrograms reads packages of the root module as they are built for Linux,
// the system on which every file that matters is in the build. What they import
// comes from the go command's build cache.
func loadPrograms(t *testing.T, dirs ...string) map[string]*program {
	t.Helper()
	packages := list(t, dirs)
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(packages[path].Export)
	})
	programs := map[string]*program{}
	for _, dir := range dirs {
		from := packages[module+"/"+dir]
		var files []*ast.File
		for _, name := range from.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(from.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		p, err := typecheck(fset, dir, files, imports)
		if err != nil {
			t.Fatal(err)
		}
		programs[dir] = p
	}
	return programs
}

// list asks the go command for the packages and all that they import.
func list(t *testing.T, dirs []string) map[string]listed {
	t.Helper()
	return listAs(t, dirs, func(p listed) string { return p.ImportPath },
		"-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles")
}

// listAs asks the go command for packages, each decoded as a P that has the path pathOf says.
func listAs[P any](t *testing.T, dirs []string, pathOf func(P) string, flags ...string) map[string]P {
	t.Helper()
	args := append([]string{"list"}, flags...)
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	packages := map[string]P{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p P
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages[pathOf(p)] = p
	}
}
