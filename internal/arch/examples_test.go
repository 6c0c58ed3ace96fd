package arch

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// shown are the packages of which every exported name stands in an Example.
var shown = append([]string{"rpc/protocodec"}, public...)

// partly are packages without a promise of which the packages above name some types, with
// these types, and what makes and describes them.
var partly = map[string][]string{
	"actor": {"Batch", "Slot"},
	"frame": {"Protocol"},
	"pool":  {"Message", "New", "Copy", "MessageOf", "MaxLen", "Compression", "NoCompression", "Gzip", "Zstd"},
}

// notShown names what stands in no Example, each with the reason.
var notShown = map[string]string{
	"admin.Handler.ConnBegun":      observed,
	"admin.Handler.ConnEnded":      observed,
	"admin.Handler.StreamBegun":    observed,
	"admin.Handler.StreamEnded":    observed,
	"rpc.SupportPackageIsVersion1": "code that protoc-gen-go-sluice generates names it, and no program",
}

const observed = "package kernel calls the methods of an Observer, and no program"

// everybodys are the methods that programs don't call by name: package errors, fmt, net/http and
// encoding/json do.
var everybodys = []string{"ServeHTTP", "Error", "Is", "Unwrap", "String", "MarshalJSON", "UnmarshalJSON"}

// TestExamplesShowEveryName fails for exported names of a package that none of its Examples
// shows. An Example shows what its own name says, what its body names, and what the
// declarations of its file name that it uses: the documentation prints these too. A type that
// is shown and implements an interface shows the interface's methods. Fields are not looked at.
func TestExamplesShowEveryName(t *testing.T) {
	all := append(slices.Sorted(maps.Keys(partly)), shown...)
	tests := listTests(t, all...)
	used := map[string]bool{}
	for _, dir := range all {
		t.Run(dir, func(t *testing.T) {
			missing, err := missingExamples(tests, dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range missing {
				key := dir + "." + name
				if _, ok := notShown[key]; ok {
					used[key] = true
				} else {
					t.Errorf("%s stands in no Example", key)
				}
			}
		})
	}
	for key, reason := range notShown {
		if !used[key] || reason == "" {
			t.Errorf("notShown: %s is shown, does not exist, or has no reason", key)
		}
	}
}

// missingExamples lists the exported names of dir that none of its Examples shows.
func missingExamples(tests map[string]listedTest, dir string) ([]string, error) {
	path := module + "/" + dir
	p, err := externalTests(tests, path)
	if p == nil || err != nil {
		return []string{"package " + path + ": no external tests"}, err
	}
	i := slices.IndexFunc(p.pkg.Imports(), func(imported *types.Package) bool { return imported.Path() == path })
	if i < 0 {
		return []string{"package " + path + ": its tests don't import it"}, nil
	}
	// What the tests import may have more names, by files such as export_test.go.
	plain, err := exportData(tests, nil).Import(path)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(exportedNames(plain), func(name string) bool {
		of, _, _ := strings.Cut(name, ".")
		return partly[dir] != nil && !slices.Contains(partly[dir], of)
	})
	return notMentioned(names, p.pkg.Imports()[i], p), nil
}

// notMentioned lists the names of pkg that the Examples of p don't show.
func notMentioned(names []string, pkg *types.Package, p *program) (missing []string) {
	set, titles := p.mentioned()
	for _, name := range names {
		_, method, _ := strings.Cut(name, ".")
		if !set[lookup(pkg, name)] && !titles[name] && !slices.Contains(everybodys, method) {
			missing = append(missing, name)
		}
	}
	return missing
}

// lookup finds Name or Type.Method.
func lookup(pkg *types.Package, name string) types.Object {
	name, method, isMethod := strings.Cut(name, ".")
	obj := pkg.Scope().Lookup(name)
	if isMethod {
		obj, _, _ = types.LookupFieldOrMethod(receiver(types.Unalias(obj.Type())), false, pkg, method)
	}
	return obj
}

// mentioned returns the objects that the Examples of a package of tests show, and the names
// that they are the Examples of.
func (p *program) mentioned() (set map[types.Object]bool, titles map[string]bool) {
	set, titles = map[types.Object]bool{}, map[string]bool{}
	for _, file := range p.files {
		w := exampleWalk{p, declared(p, file), map[ast.Node]bool{}, set}
		for _, d := range file.Decls {
			if fd, ok := d.(*ast.FuncDecl); ok && isExample(fd) {
				titles[title(fd.Name.Name)] = true
				w.visit(fd.Body)
			}
		}
	}
	return set, titles
}

// title is what an Example is of: Name or Type.Method. The documentation tool cuts off a
// suffix, which begins with a small letter.
func title(function string) string {
	parts := strings.Split(strings.TrimPrefix(function, "Example"), "_")
	if n := len(parts); n > 1 && parts[n-1] != "" && unicode.IsLower(rune(parts[n-1][0])) {
		parts = parts[:n-1]
	}
	return strings.Join(parts, ".")
}

func isExample(fd *ast.FuncDecl) bool {
	return fd.Recv == nil && strings.HasPrefix(fd.Name.Name, "Example") && fd.Type.Params.NumFields() == 0
}

// declared finds the declarations of a file: of a type also its methods.
func declared(p *program, file *ast.File) map[types.Object][]ast.Node {
	found := map[types.Object][]ast.Node{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			obj := p.info.Defs[d.Name]
			if recv := obj.(*types.Func).Signature().Recv(); recv != nil {
				obj = namedOf(recv.Type()).Origin().Obj()
			}
			found[obj] = append(found[obj], d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					found[p.info.Defs[s.Name]] = append(found[p.info.Defs[s.Name]], s)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						found[p.info.Defs[id]] = append(found[p.info.Defs[id]], s)
					}
				}
			}
		}
	}
	return found
}

func namedOf(t types.Type) *types.Named {
	if ptr, ok := t.(*types.Pointer); ok {
		t = ptr.Elem()
	}
	named, _ := types.Unalias(t).(*types.Named)
	return named
}

// An exampleWalk goes from the body of an Example to the declarations of its file that the
// body uses, and collects what they name.
type exampleWalk struct {
	p    *program
	decl map[types.Object][]ast.Node
	seen map[ast.Node]bool
	set  map[types.Object]bool
}

func (w *exampleWalk) visit(n ast.Node) {
	if w.seen[n] {
		return
	}
	w.seen[n] = true
	if fd, ok := n.(*ast.FuncDecl); ok && fd.Recv != nil {
		w.implements(w.p.info.Defs[fd.Name].(*types.Func))
	}
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && w.p.info.Uses[id] != nil {
			obj := origin(w.p.info.Uses[id])
			w.set[obj] = true
			for _, d := range w.decl[obj] {
				w.visit(d)
			}
		}
		return true
	})
}

// implements adds the methods of our interfaces that f implements.
func (w *exampleWalk) implements(f *types.Func) {
	typ := f.Signature().Recv().Type()
	for _, pkg := range w.p.pkg.Imports() {
		for _, name := range pkg.Scope().Names() {
			obj, ok := pkg.Scope().Lookup(name).(*types.TypeName)
			if !ok || !ours(pkg) || !obj.Exported() {
				continue
			}
			named, ok := types.Unalias(obj.Type()).(*types.Named)
			if !ok || !types.IsInterface(named) {
				continue
			}
			m, _, _ := types.LookupFieldOrMethod(named, false, pkg, f.Name())
			if m != nil && hasMethods(typ, named) {
				w.set[m] = true
			}
		}
	}
}

// hasMethods reports whether typ has all methods of an interface, which may be generic.
func hasMethods(typ types.Type, of *types.Named) bool {
	for m := range of.Underlying().(*types.Interface).Methods() {
		obj, _, _ := types.LookupFieldOrMethod(receiver(namedOf(typ)), false, m.Pkg(), m.Name())
		f, ok := obj.(*types.Func)
		if !ok || of.TypeParams().Len() == 0 && !types.Identical(f.Type(), m.Type()) {
			return false
		}
	}
	return true
}

// origin is the generic function, method or field of an instance.
func origin(obj types.Object) types.Object {
	switch o := obj.(type) {
	case *types.Func:
		return o.Origin()
	case *types.Var:
		return o.Origin()
	}
	return obj
}

// A listedTest is what the go command says about a package, tests and their variants of
// packages among them.
type listedTest struct {
	listed
	ImportMap map[string]string
	ForTest   string
}

// listTests asks the go command for packages, their tests, and all that they import.
func listTests(t *testing.T, dirs ...string) map[string]listedTest {
	t.Helper()
	return listAs(t, dirs, func(p listedTest) string { return p.ImportPath },
		"-test", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,ImportMap,ForTest")
}

// externalTests reads the tests of the package at path that are in a package of their own,
// or returns nil if there are none.
func externalTests(packages map[string]listedTest, path string) (*program, error) {
	from, ok := packages[path+"_test ["+path+".test]"]
	if !ok {
		return nil, nil
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range from.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(from.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return typecheck(fset, strings.TrimPrefix(path, module+"/")+"_test", files, exportData(packages, from.ImportMap))
}

// exportData imports from the go command's build cache. The map has the variants of packages
// that a test is built with.
func exportData(packages map[string]listedTest, variants map[string]string) types.Importer {
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if variant, ok := variants[path]; ok {
			path = variant
		}
		return os.Open(packages[path].Export)
	})
}

// TestPackagesSayWhatTheyAreFor looks at the first sentence of each package's documentation.
func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	said := map[string]string{}
	for _, s := range load(t).library() {
		if s.ast.Doc != nil {
			said[s.dir] = s.ast.Doc.Text()
		}
	}
	for dir, text := range said {
		report(t, checkPackageDoc(dir, text))
	}
}

func checkPackageDoc(dir, text string) (bad []string) {
	first := new(doc.Package).Synopsis(text)
	if !strings.HasPrefix(first, "Package "+filepath.Base(dir)+" ") || len(strings.Fields(first)) < 5 || !strings.HasSuffix(first, ".") && !strings.HasSuffix(first, ":") {
		bad = append(bad, fmt.Sprintf("%s: %q does not say what the package is for", dir, first))
	}
	return bad
}
