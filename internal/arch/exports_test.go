package arch

import (
	"fmt"
	"go/types"
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
