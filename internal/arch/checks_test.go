package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Each check returns one line for each thing that is wrong.

func checkImports(tr *tree) (bad []string) {
	for _, s := range tr.files {
		for _, spec := range s.ast.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				bad = append(bad, tr.at(spec)+": "+err.Error())
			} else if why := importProblem(s, to); why != "" {
				bad = append(bad, fmt.Sprintf("%s: %s %s", tr.at(spec), s.dir, why))
			}
		}
		if _, known := allowedOurs(s.dir); !known {
			bad = append(bad, s.path+": package "+s.dir+" is not in the table of imports")
		}
	}
	return bad
}

func importProblem(s *source, to string) string {
	if ours, ok := strings.CutPrefix(to, module+"/"); ok {
		return ourProblem(s, ours)
	}
	if first, _, _ := strings.Cut(to, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	if permits(external, s.dir, to) || s.helper() && permits(testExternal, s.dir, to) {
		return ""
	}
	return "must not import " + to
}

func ourProblem(s *source, to string) string {
	allowed, _ := allowedOurs(s.dir)
	switch {
	case to == s.dir && s.test: // an external test of its own package
	case slices.Contains(allowed, to):
	case s.helper() && (slices.Contains(testImports, to) || slices.Contains(testImportsOf[s.dir], to)):
	default:
		return "must not import " + to
	}
	return ""
}

// allowedOurs returns what dir may import of ours, and whether dir is known.
func allowedOurs(dir string) ([]string, bool) {
	if allowed, ok := imports[dir]; ok {
		return allowed, true
	}
	if allowed, ok := helpers[dir]; ok {
		return allowed, true
	}
	switch {
	case strings.HasPrefix(dir, "frame/"):
		return protocolImports, true
	case strings.HasPrefix(dir, "internal/"), dir == "models":
		return nil, true
	}
	return nil, false
}

func permits(table map[string][]string, dir, to string) bool {
	for mod, dirs := range table {
		if to == mod || strings.HasPrefix(to, mod+"/") {
			return len(dirs) == 0 || slices.Contains(dirs, dir)
		}
	}
	return false
}

func checkDocs(tr *tree) (bad []string) {
	documented := map[string]bool{}
	for _, s := range tr.production() {
		documented[s.dir] = documented[s.dir] || s.ast.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			bad = append(bad, dir+": the package has no doc comment")
		}
	}
	for _, s := range tr.library() {
		if strings.HasPrefix(s.dir, "internal/") {
			continue
		}
		for _, d := range s.ast.Decls {
			for _, id := range undocumented(d) {
				bad = append(bad, tr.at(id)+": "+id.Name+" has no doc comment")
			}
		}
	}
	return bad
}

// undocumented returns the exported names that d declares without a word.
func undocumented(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil && (d.Name.Name == "Error" || d.Name.Name == "Unwrap") {
			return nil // the contract is everybody's
		}
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || receiverExported(d)) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		return undocumentedSpecs(d)
	}
	return nil
}

func receiverExported(d *ast.FuncDecl) bool {
	name := strings.TrimPrefix(functionName(d), "(*")
	return ast.IsExported(name)
}

func undocumentedSpecs(d *ast.GenDecl) (bad []*ast.Ident) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
				bad = append(bad, s.Name)
			}
		case *ast.ValueSpec:
			for _, id := range s.Names {
				if id.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					bad = append(bad, id)
				}
			}
		}
	}
	return bad
}

// checkState finds init functions and package variables that can change.
func checkState(tr *tree) (bad []string) {
	used := map[string]bool{}
	for _, s := range tr.production() {
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					bad = append(bad, tr.at(d)+": init runs before anybody asked for it")
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					bad = append(bad, variables(tr, s, d, used)...)
				}
			}
		}
	}
	return append(bad, unused("mutable", mutable, used, tr)...)
}

func variables(tr *tree, s *source, d *ast.GenDecl, used map[string]bool) (bad []string) {
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		for i, id := range v.Names {
			key := s.dir + "." + id.Name
			why := changeable(tr, s, v, i)
			if id.Name == "_" || why == "" {
				continue
			}
			if _, ok := mutable[key]; ok {
				used[key] = true
				continue
			}
			bad = append(bad, fmt.Sprintf("%s: package variable %s %s", tr.at(id), key, why))
		}
	}
	return bad
}

// changeable says why the i-th name of v is not a constant in all but name.
func changeable(tr *tree, s *source, v *ast.ValueSpec, i int) string {
	if isPool(v.Type) {
		return ""
	}
	if i >= len(v.Values) {
		return "has no value of its own, so it is there to be changed"
	}
	value := v.Values[i]
	if lit, ok := value.(*ast.CompositeLit); ok && isPool(lit.Type) {
		return ""
	}
	if lit, ok := value.(*ast.CompositeLit); ok && isSync(lit.Type) {
		return "is there to be changed"
	}
	if where := written(tr, s.dir, v, v.Names[i].Name); where != "" {
		return "is changed at " + where
	}
	return ""
}

func isPool(e ast.Expr) bool {
	if array, ok := e.(*ast.ArrayType); ok {
		return isPool(array.Elt)
	}
	pkg, name := selector(e)
	return name == "Pool" && (pkg == "sync" || pkg == "bytebufferpool")
}

func isSync(e ast.Expr) bool {
	pkg, _ := selector(e)
	return pkg == "sync" || pkg == "atomic"
}

// written finds the first place in the package that assigns to the variable,
// or to a part of it, or takes its address.
func written(tr *tree, dir string, v *ast.ValueSpec, name string) (where string) {
	check := func(e ast.Expr) {
		if id := rootIdent(e); id != nil && id.Name == name && !local(id, v) && where == "" {
			where = tr.at(id)
		}
	}
	for _, s := range tr.files {
		if s.dir != dir || s.test {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					check(e)
				}
			case *ast.IncDecStmt:
				check(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					check(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") {
					check(n.Args[0])
				}
			}
			return true
		})
	}
	return where
}

// rootIdent returns x of x, x[i], x.f, *x and their combinations.
func rootIdent(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// local reports whether id means something declared in its own file other than
// v. The parser leaves names of other files of the package unresolved, which is
// good enough here and needs no type checker.
func local(id *ast.Ident, v *ast.ValueSpec) bool {
	obj := id.Obj
	return obj != nil && obj.Decl != v
}

// checkBans finds panics, prints, logs, exits and dates in library packages.
func checkBans(tr *tree) (bad []string) {
	used := map[string]bool{}
	for _, s := range tr.library() {
		inFunctions(s.ast, func(function string, n ast.Node) {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return
			}
			why := banned(call)
			if why == "" && !strings.HasPrefix(s.dir, "cmd/") && readsWallClock(call) {
				why = "a date is no time to wait for: the clock may be set. Use a time.Time as it comes, or a time.Duration"
			}
			key := s.dir + "." + function
			if _, ok := panics[key]; ok && why == noPanic {
				used[key] = true
			} else if why != "" {
				bad = append(bad, fmt.Sprintf("%s: %s: %s", tr.at(call), key, why))
			}
		})
	}
	return append(bad, unused("panics", panics, used, tr)...)
}

const noPanic = "return an error, or name it in panics"

func banned(call *ast.CallExpr) string {
	if id, ok := call.Fun.(*ast.Ident); ok {
		switch id.Name {
		case "panic":
			return noPanic
		case "print", "println":
			return "use the logger from the options"
		}
		return ""
	}
	pkg, name := selector(call.Fun)
	switch {
	case pkg == "log", pkg == "fmt" && strings.HasPrefix(name, "Print"):
		return "use the logger from the options"
	case pkg == "os" && name == "Exit":
		return "return an error"
	}
	return ""
}

// readsWallClock reports whether a call makes a number of a date, or a date of a number, or strips a
// time of its monotonic clock.
func readsWallClock(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	switch f.Sel.Name {
	case "Unix", "UnixNano", "UnixMicro", "UnixMilli":
		return true
	case "Round":
		zero, ok := call.Args[0].(*ast.BasicLit)
		return ok && zero.Value == "0"
	}
	return false
}

// unused finds exceptions that nothing needs any more. Those of packages that
// are not in the tree are not judged.
func unused(table string, entries map[string]string, used map[string]bool, tr *tree) (bad []string) {
	for key, reason := range entries {
		dir := key[:strings.Index(key, ".")]
		here := slices.ContainsFunc(tr.files, func(s *source) bool { return s.dir == dir })
		if here && !used[key] {
			bad = append(bad, fmt.Sprintf("%s: %q is not needed any more", table, key))
		}
		if reason == "" {
			bad = append(bad, fmt.Sprintf("%s: %q has no reason", table, key))
		}
	}
	return bad
}

// checkSizes finds files and functions that are too long. Nobody reads generated
// files.
func checkSizes(tr *tree) (bad []string) {
	for _, s := range tr.production() {
		if ast.IsGenerated(s.ast) {
			continue
		}
		if s.lines > maxFile {
			bad = append(bad, fmt.Sprintf("%s: %d lines, at most %d", s.path, s.lines, maxFile))
		}
		for _, fd := range s.functions() {
			if n := tr.lines(fd); n > maxFunction {
				bad = append(bad, fmt.Sprintf("%s: %s has %d lines, at most %d",
					tr.at(fd), functionName(fd), n, maxFunction))
			}
		}
	}
	return bad
}

// checkPackageLines finds packages that have become longer than they may.
func checkPackageLines(tr *tree, table map[string]int) (bad []string) {
	lines := map[string]int{}
	for _, s := range tr.production() {
		lines[s.dir] += s.lines
	}
	for dir, most := range table {
		switch n := lines[dir]; {
		case n == 0:
			bad = append(bad, dir+": no such package; take it out of packageLines")
		case n > most:
			bad = append(bad, fmt.Sprintf("%s: %d lines, at most %d", dir, n, most))
		}
	}
	return bad
}

// functionSizes lists how many lines the functions have.
func functionSizes(tr *tree) (sizes []int) {
	for _, s := range tr.production() {
		for _, fd := range s.functions() {
			sizes = append(sizes, tr.lines(fd))
		}
	}
	return sizes
}

func checkPercentiles(sizes []int) (bad []string) {
	if len(sizes) < minForPercentile {
		return nil
	}
	slices.Sort(sizes)
	if n := sizes[len(sizes)/2]; n > maxFunctionP50 {
		bad = append(bad, fmt.Sprintf("half of the functions have %d lines or more, at most %d", n, maxFunctionP50))
	}
	if n := sizes[len(sizes)*9/10]; n > maxFunctionP90 {
		bad = append(bad, fmt.Sprintf("a tenth of the functions has %d lines or more, at most %d", n, maxFunctionP90))
	}
	return bad
}

func checkTestShare(tr *tree) []string {
	var tests, code int
	for _, s := range tr.files {
		if s.helper() {
			tests += s.lines
		} else {
			code += s.lines
		}
	}
	if tests*100 < code*minTestShare {
		return []string{fmt.Sprintf("%d lines of tests for %d lines of code, at least %d %%", tests, code, minTestShare)}
	}
	return nil
}

// checkLeaks finds packages whose tests nobody asks what goroutines they leave.
func checkLeaks(tr *tree) (bad []string) {
	tested, asked := map[string]bool{}, map[string]bool{}
	for _, s := range tr.files {
		if !s.test {
			continue
		}
		tested[s.dir] = true
		inFunctions(s.ast, func(function string, n ast.Node) {
			if call, ok := n.(*ast.CallExpr); ok && function == "TestMain" && asksForLeaks(s, call.Fun) {
				asked[s.dir] = true
			}
		})
	}
	for dir := range tested {
		if !asked[dir] {
			bad = append(bad, dir+": no TestMain calls leak.Main")
		}
	}
	return bad
}

func asksForLeaks(s *source, called ast.Expr) bool {
	if id, ok := called.(*ast.Ident); ok {
		return s.dir == "internal/leak" && id.Name == "Main"
	}
	pkg, name := selector(called)
	return pkg == "leak" && name == "Main" || pkg == "goleak" && name == "VerifyTestMain"
}

// findSpawns lists what begins to run by itself.
func findSpawns(tr *tree) (found []spawn) {
	for _, s := range tr.production() {
		inFunctions(s.ast, func(function string, n ast.Node) {
			if kind := spawnKind(n); kind != "" {
				found = append(found, spawn{file: s.path, function: function, kind: kind})
			}
		})
	}
	return found
}

func spawnKind(n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "go"
	case *ast.CallExpr:
		pkg, name := selector(n.Fun)
		switch {
		case name == "AfterFunc":
			return pkg + ".AfterFunc"
		case name == "Go" && len(n.Args) == 1:
			return "Go"
		}
	}
	return ""
}

// checkSpawns compares what is there with the list.
func checkSpawns(tr *tree, list []spawn) (bad []string) {
	rest := slices.Clone(list)
	for _, f := range findSpawns(tr) {
		i := slices.IndexFunc(rest, func(s spawn) bool {
			return s.file == f.file && s.function == f.function && s.kind == f.kind
		})
		if i < 0 {
			bad = append(bad, fmt.Sprintf("not listed; add to spawns in tables_test.go:\n\t{%q, %q, %q, \"WHO HOLDS IT\", \"WHAT ENDS IT\"},",
				f.file, f.function, f.kind))
			continue
		}
		rest = slices.Delete(rest, i, i+1)
	}
	for _, s := range rest {
		bad = append(bad, fmt.Sprintf("listed, but gone: {%q, %q, %q, …}", s.file, s.function, s.kind))
	}
	for _, s := range list {
		if s.owner == "" || s.end == "" || strings.HasPrefix(s.owner, "WHO ") || strings.HasPrefix(s.end, "WHAT ") {
			bad = append(bad, fmt.Sprintf("%s: %s: say who holds it and what ends it", s.file, s.function))
		}
	}
	return bad
}

// forbidden matches what is true on one machine only. The pieces keep this
// file from matching itself.
var forbidden = regexp.MustCompile(`(^|[^\w.$}])/(` + strings.Join([]string{"wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"}, "|") + `)/` +
	`|` + strings.Join([]string{
	`(proxy|sum)\.golang` + `\.org`,
	`registry\.npm` + `js`,
	`pypi` + `\.org`,
	`pythonhosted` + `\.org`,
	`crates` + `\.io`,
	`repo\.maven` + `\.apache`,
	`deb\.debi` + `an\.org`,
}, "|"))

func checkWords(name string, text []byte) (bad []string) {
	if slices.Contains(text[:min(len(text), 8000)], 0) {
		return nil // not text
	}
	for i, line := range strings.Split(string(text), "\n") {
		if m := forbidden.FindString(line); m != "" {
			bad = append(bad, fmt.Sprintf("%s:%d: %q is true on one machine only", name, i+1, strings.TrimSpace(m)))
		}
	}
	return bad
}
