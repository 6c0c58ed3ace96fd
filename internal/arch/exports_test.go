package arch

import (
	"fmt"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestExports keeps the public API from growing unnoticed. With -v it prints
// the names.
func TestExports(t *testing.T) {
	for dir := range exports {
		t.Run(dir, func(t *testing.T) {
			names := exportedNames(loadPrograms(t, dir)[dir].pkg)
			report(t, checkExports(dir, len(names), exports))
			t.Logf("%s exports %d names besides fields:\n%s", dir, len(names), strings.Join(names, "\n"))
		})
	}
}

// TestReasons wants docs/api/README.md to say of each exported name why it is there.
func TestReasons(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "api", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for dir, p := range loadPrograms(t, slices.Collect(maps.Keys(exports))...) {
		report(t, reasons(dir, string(page), exportedNames(p.pkg)))
	}
}

// reasons compares names with those in the section of a page that has the package's name. In
// the first column of its tables a name stands in backquotes, methods behind their type and a
// colon.
func reasons(dir, page string, names []string) (bad []string) {
	_, section, _ := strings.Cut(page, "\n## "+dir+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var there []string
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for part := range strings.SplitSeq(cells[1], ";") {
			prefix := ""
			if typ, rest, ok := strings.Cut(part, "`: "); ok {
				prefix, part = strings.Trim(typ, " `")+".", rest
			}
			for name := range strings.SplitSeq(part, ",") {
				if name = strings.TrimSpace(name); strings.HasPrefix(name, "`") {
					there = append(there, prefix+strings.Trim(name, "`"))
				}
			}
		}
	}
	for _, name := range names {
		if !slices.Contains(there, name) {
			bad = append(bad, fmt.Sprintf("docs/api/README.md does not say why there is %s.%s", dir, name))
		}
	}
	for i, name := range there {
		if !slices.Contains(names, name) {
			bad = append(bad, fmt.Sprintf("docs/api/README.md: there is no %s.%s", dir, name))
		}
		if slices.Contains(there[:i], name) {
			bad = append(bad, fmt.Sprintf("docs/api/README.md: %s.%s stands twice", dir, name))
		}
	}
	return bad
}

func TestReasonsFindsWhatIsMissing(t *testing.T) {
	page := "\n## a\n\n| names | why |\n|---|---|\n| `T`, `F`; `T`: `M`, `Gone` | because |\n| `F` | again |\n\n## b\n| `X` | no |\n"
	finds(t, reasons("a", page, []string{"F", "New", "T", "T.M"}), "does not say why there is a.New", "there is no a.T.Gone", "a.F stands twice")
}

// TestAliases keeps go doc useful: of an alias it shows neither fields nor methods. What a
// program needs of another package it takes from there.
func TestAliases(t *testing.T) {
	for dir, p := range loadPrograms(t, public...) {
		report(t, aliases(dir, p.pkg))
	}
}

func aliases(dir string, pkg *types.Package) (bad []string) {
	for _, name := range pkg.Scope().Names() {
		if o, ok := pkg.Scope().Lookup(name).(*types.TypeName); ok && o.Exported() && o.IsAlias() {
			bad = append(bad, fmt.Sprintf("%s.%s is an alias: go doc shows nothing of it", dir, name))
		}
	}
	return bad
}

// checkExports compares the number of exported names with the table.
func checkExports(dir string, n int, table map[string]int) []string {
	switch limit := table[dir]; {
	case n > limit:
		return []string{fmt.Sprintf("%s exports %d names besides fields, at most %d; see go test ./internal/arch -run Exports -v", dir, n, limit)}
	case n < limit:
		return []string{fmt.Sprintf("exports: %s: lower the limit to %d, it is %d", dir, n, limit)}
	}
	return nil
}

// exportedNames lists what a package exports, without fields. The methods of a
// type of ours count where an alias exports it. A method that other types promote
// from an exported type, such as Handlers.Handle of a Server, counts once.
func exportedNames(pkg *types.Package) (names []string) {
	seen := map[types.Type]bool{}
	for _, name := range pkg.Scope().Names() {
		obj := pkg.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		names = append(names, name)
		if _, ok := obj.(*types.TypeName); !ok {
			continue
		}
		typ := types.Unalias(obj.Type())
		if named, ok := typ.(*types.Named); !ok || !ours(named.Obj().Pkg()) || seen[typ] {
			continue
		}
		seen[typ] = true
		for m := range types.NewMethodSet(receiver(typ)).Methods() {
			if m.Obj().Exported() && !promoted(m) {
				names = append(names, name+"."+m.Obj().Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

// promoted reports whether m is the method of an embedded type that is exported itself.
func promoted(m *types.Selection) bool {
	if len(m.Index()) == 1 {
		return false
	}
	recv := m.Obj().(*types.Func).Signature().Recv().Type()
	if p, ok := recv.(*types.Pointer); ok {
		recv = p.Elem()
	}
	named, ok := recv.(*types.Named)
	return ok && named.Obj().Exported() && named.Obj().Pkg() == m.Recv().(*types.Pointer).Elem().(*types.Named).Obj().Pkg()
}

func ours(pkg *types.Package) bool {
	return pkg != nil && (pkg.Path() == module || strings.HasPrefix(pkg.Path(), module+"/"))
}

// receiver returns the type that has all methods: T for an interface, *T else.
func receiver(typ types.Type) types.Type {
	if types.IsInterface(typ) {
		return typ
	}
	return types.NewPointer(typ)
}
