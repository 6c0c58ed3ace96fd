package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// fixture makes a tree of files that exist only here: path, text, path, text.
func fixture(t *testing.T, files ...string) *tree {
	t.Helper()
	tr := newTree()
	for i := 0; i < len(files); i += 2 {
		if err := tr.add(files[i], []byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// finds checks that exactly the wanted things are found, each by a part of its
// line.
func finds(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("found %d things, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for _, w := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, w) }) {
			t.Errorf("did not find %q in:\n%s", w, strings.Join(got, "\n"))
		}
	}
}

func TestImportsFinds(t *testing.T) {
	ours := func(pkg string) string { return fmt.Sprintf("package p\nimport _ %q\n", module+"/"+pkg) }
	for _, c := range []struct{ path, text, want string }{
		{"pool/a.go", ours("frame"), "pool must not import frame"},
		{"frame/a.go", ours("pool"), ""},
		{"frame/native/a.go", ours("conn"), "must not"},
		{"frame/strm/a.go", ours("frame"), ""},
		{"frame/strm/a.go", ours("frame/native"), "must not"},
		{"actor/a.go", ours("conn"), "must not"},
		{"actor/a_test.go", ours("conn"), "must not"},
		{"conn/a.go", ours("actor"), "must not"},
		{"conn/a_test.go", ours("actor"), "must not"},
		{"conn/a.go", ours("frame/native"), "must not"},
		{"conn/a_test.go", ours("frame/native"), ""},
		{"conn/a_test.go", ours("conn"), ""},
		{"conn/a.go", ours("internal/leak"), "must not"},
		{"conn/a_test.go", ours("internal/leak"), ""},
		{"kernel/a.go", ours("actor"), ""},
		{"kernel/a.go", ours("frame/native"), ""},
		{"kernel/a.go", ours("frame/strm"), "must not"},
		{"kernel/kerneltest/a.go", ours("actor"), "must not"},
		{"cmd/echo/main.go", ours("conn"), "must not"},
		{"cmd/echo/main.go", ours("kernel"), ""},
		{"internal/timers/a.go", ours("pool"), "must not"},
		{"extra/a.go", "package p\n", "not in the table"},
		{"conn/a.go", "package p\nimport _ \"github.com/panjf2000/gnet/v2\"\n", ""},
		{"conn/a.go", "package p\nimport _ \"github.com/panjf2000/gnet/v2/pkg/logging\"\n", ""},
		{"kernel/a.go", "package p\nimport _ \"github.com/panjf2000/gnet/v2\"\n", "must not"},
		{"kernel/a_test.go", "package p\nimport _ \"github.com/panjf2000/gnet/v2\"\n", "must not"},
		{"frame/a.go", "package p\nimport _ \"github.com/valyala/bytebufferpool\"\n", "must not"},
		{"pool/a.go", "package p\nimport _ \"go.uber.org/goleak\"\n", "must not"},
		{"pool/a_test.go", "package p\nimport _ \"go.uber.org/goleak\"\n", ""},
		{"pool/a.go", "package p\nimport _ \"example.com/new\"\n", "must not"},
		{"pool/a.go", "package p\nimport _ \"net/http\"\n", ""},
	} {
		got := checkImports(fixture(t, c.path, c.text))
		if c.want == "" {
			finds(t, got)
		} else {
			finds(t, got, c.want)
		}
	}
}

func TestDocsFinds(t *testing.T) {
	text := `%spackage conn
func F() {}
// G is documented.
func G() {}
type T struct{ X int }
func (t *T) M() {}
func (t *T) Error() string { return "" }
func (t *T) unexported() {}
type u[P any] struct{}
func (u[P]) M() {}
const A, b = 1, 2
// A group's comment counts for all of it.
const (
	C = 3
	D = 4
)
var E = 5 // so does one behind
`
	finds(t, checkDocs(fixture(t, "conn/a.go", fmt.Sprintf(text, "// Package conn is documented.\n"))),
		"a.go:3: F ", "a.go:6: T ", "a.go:7: M ", "a.go:12: A ")
	finds(t, checkDocs(fixture(t, "pool/a.go", "package pool\n")), "pool: the package")
	finds(t, checkDocs(fixture(t, "pool/a_test.go", "package pool\nfunc F() {}\n")))
	finds(t, checkDocs(fixture(t, "internal/x/a.go", "// Package x.\npackage x\nfunc F() {}\n")))
}

func TestStateFinds(t *testing.T) {
	finds(t, checkState(fixture(t, "conn/a.go", `package conn
func init() {}
var ErrX = errors.New("x")
var _ I = (*T)(nil)
var free = sync.Pool{New: f}
var classes [4]sync.Pool
var table = map[string]int{"a": 1}
var counter int
var mu sync.Mutex
var flag = &x{}
var grown = []int{1}
var sum = 0
var once = sync.Once{}
var byPointer = 1
var cache = map[int]int{}
var shadowed = 1
func f() {
	grown[0] = 2
	sum++
	g(&byPointer)
	delete(cache, 1)
	shadowed := 2
	shadowed = 3
	_ = table
}
`, "conn/b.go", `package conn
func g() { flag.x = 1 }
`)), "init runs", "conn.counter has no", "conn.mu has no", "conn.grown is changed at conn/a.go:18",
		"conn.sum is changed", "conn.once is there", "conn.byPointer is changed", "conn.cache is changed",
		"conn.flag is changed at conn/b.go:2")
	finds(t, checkState(fixture(t, "pool/a.go", "package pool\nvar outstanding atomic.Int64\n")))
	finds(t, checkState(fixture(t, "pool/a.go", "package pool\n")), `"pool.outstanding" is not needed`)
}

func TestBansFinds(t *testing.T) {
	finds(t, checkBans(fixture(t, "conn/a.go", `package conn
func a() { panic(1) }
func (t *T) b() { log.Printf("") ; t.log.Printf("") }
func c() { fmt.Println(); fmt.Fprintln(w); fmt.Sprint() }
func d() { println() }
func e() { os.Exit(1) }
func f() { time.Now().UnixNano(); time.Now().Round(0); d.Round(time.Second); time.Unix(1, 0); time.Since(t) }
`)), "conn.f: a date", "conn.f: a date", "conn.f: a date", "conn.a: return an error, or", "conn.(*T).b: use the logger", "conn.c: use", "conn.d: use", "conn.e: return an error")
	finds(t, checkBans(fixture(t, "cmd/echo/main.go", "package main\nfunc main() { log.Fatal(1) }\n")))
	finds(t, checkBans(fixture(t, "conn/a_test.go", "package conn\nfunc a() { panic(1) }\n")))
	finds(t, unused("panics", map[string]string{"conn.a": ""}, map[string]bool{"conn.a": true},
		fixture(t, "conn/a.go", "package conn\n")), "has no reason")
}

func TestSizesFinds(t *testing.T) {
	long := func(lines int) string { return "func f() {\n" + strings.Repeat("\n", lines-2) + "}\n" }
	finds(t, checkSizes(fixture(t, "conn/a.go", "package conn\n"+long(maxFunction))))
	finds(t, checkSizes(fixture(t, "conn/a.go", "package conn\n"+long(maxFunction+1))), "f has 81 lines")
	finds(t, checkSizes(fixture(t, "conn/a.go", "package conn\n"+strings.Repeat("\n", maxFile-1))))
	finds(t, checkSizes(fixture(t, "conn/a.go", "package conn\n"+strings.Repeat("\n", maxFile))), "601 lines")
	finds(t, checkSizes(fixture(t, "conn/a_test.go", "package conn\n"+strings.Repeat("\n", maxFile))))
	finds(t, checkSizes(fixture(t, "benchmarks/a.go", "package a\n"+strings.Repeat("\n", maxFile))), "601 lines")
	two := fixture(t, "cmd/a/a.go", "package main\n"+long(9), "cmd/a/b.go", "package main\n"+long(9),
		"cmd/a/a_test.go", "package main\n"+long(9), "cmd/a/b/c.go", "package b\n"+long(9))
	finds(t, checkPackageLines(two, map[string]int{"cmd/a": 20}))
	finds(t, checkPackageLines(two, map[string]int{"cmd/a": 19}), "cmd/a: 20 lines, at most 19")
	finds(t, checkPackageLines(two, map[string]int{"cmd/c": 19}), "cmd/c: no such package")
	generated := "// Code generated by a tool. DO NOT EDIT.\n\npackage conn\n"
	finds(t, checkSizes(fixture(t, "conn/a.go", generated+long(maxFile))))
	if got := functionSizes(fixture(t, "conn/a.go", "package conn\n"+long(7)+long(9))); !slices.Equal(got, []int{7, 9}) {
		t.Errorf("function sizes %v, want 7 and 9", got)
	}

	finds(t, checkPercentiles(slices.Repeat([]int{maxFunctionP50}, 20)))
	finds(t, checkPercentiles(slices.Repeat([]int{maxFunctionP50 + 1}, 19)))
	finds(t, checkPercentiles(slices.Repeat([]int{maxFunctionP50 + 1}, 20)), "half of")
	finds(t, checkPercentiles(append(slices.Repeat([]int{1}, 17), 31, 31, 31)), "a tenth of")
}

func TestTestShareFinds(t *testing.T) {
	code := "package conn\n" + strings.Repeat("\n", 99)
	enough := "package conn\n" + strings.Repeat("\n", minTestShare-1)
	finds(t, checkTestShare(fixture(t, "conn/a.go", code, "conn/a_test.go", enough)))
	finds(t, checkTestShare(fixture(t, "conn/a.go", code+"\n\n\n", "conn/a_test.go", enough)), "lines of tests")
	finds(t, checkTestShare(newTree()))
}

func TestLeaksFinds(t *testing.T) {
	main := "package conn\nfunc TestMain(m *testing.M) { leak.Main(m) }\n"
	finds(t, checkLeaks(fixture(t, "conn/a.go", "package conn\n", "conn/a_test.go", main)))
	finds(t, checkLeaks(fixture(t, "conn/a_test.go", "package conn\n", "conn/main_test.go", main)))
	finds(t, checkLeaks(fixture(t, "conn/a_test.go", "package conn\n", "pool/main_test.go", main)), "conn: no TestMain")
	finds(t, checkLeaks(fixture(t, "conn/a_test.go", "package conn\nfunc TestMain(m *testing.M) { m.Run() }\n")), "conn: no TestMain")
	finds(t, checkLeaks(fixture(t, "conn/a.go", "package conn\n")))
}

func TestSpawnsFinds(t *testing.T) {
	tr := fixture(t, "conn/a.go", `package conn
func (c *Conn) a() { go c.read(); go c.write() }
func b() { stop := context.AfterFunc(ctx, f); time.AfterFunc(d, f); wg.Go(f) }
`, "conn/a_test.go", "package conn\nfunc t() { go f() }\n")
	a := spawn{"conn/a.go", "(*Conn).a", "go", "the Conn", "Close"}
	all := []spawn{a, a,
		{"conn/a.go", "b", "context.AfterFunc", "b", "stop"},
		{"conn/a.go", "b", "time.AfterFunc", "b", "fires"},
		{"conn/a.go", "b", "Go", "wg", "Wait"}}

	finds(t, checkSpawns(tr, all))
	finds(t, checkSpawns(tr, all[1:]), `{"conn/a.go", "(*Conn).a", "go", "WHO HOLDS IT", "WHAT ENDS IT"},`)
	finds(t, checkSpawns(tr, all[:4]), `"b", "Go"`)
	finds(t, checkSpawns(tr, append(slices.Clone(all), a)), "listed, but gone")
	unsaid := slices.Clone(all)
	unsaid[0].end = ""
	unsaid[1].owner = "WHO HOLDS IT"
	finds(t, checkSpawns(tr, unsaid), "say who", "say who")
}

func TestWordsFinds(t *testing.T) {
	for _, word := range []string{
		"see /wo" + "rk/x", "cd /ro" + "ot/y", "(/ho" + "me/me/", "https://pro" + "xy.golang" + ".org", "pypi" + ".org",
	} {
		finds(t, checkWords("a.md", []byte("fine\n"+word)), "a.md:2")
	}
	for _, word := range []string{"net/wo" + "rk/", "/workers/", "a/ro" + "ot/b", "$HOME/ro" + "ot/", "go.dev"} {
		finds(t, checkWords("a.md", []byte(word)))
	}
	finds(t, checkWords("a.bin", []byte("\x00 /ro"+"ot/")))
}

// compiled makes a program of files that import nothing: path, text, path, text.
func compiled(t *testing.T, files ...string) *program {
	t.Helper()
	tr := fixture(t, files...)
	var parsed []*ast.File
	for _, s := range tr.files {
		parsed = append(parsed, s.ast)
	}
	p, err := typecheck(tr.fset, tr.files[0].dir, parsed, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReadingOrderFinds(t *testing.T) {
	table := map[string]float64{"a": 30, "b": maxBackward, "c": maxBackward - 1}
	finds(t, checkOrder("a", 30, table))
	finds(t, checkOrder("a", 30.1, table), "30.1 % of the arrows")
	finds(t, checkOrder("a", 29, table))
	finds(t, checkOrder("a", 28.9, table), "lower the limit to 28.9")
	finds(t, checkOrder("a", 10, table), "lower the limit to 20.0")
	finds(t, checkOrder("b", 10, table))
	finds(t, checkOrder("b", 20.1, table), "b: in the best")
	finds(t, checkOrder("c", 10, table), "never below")
}

// What a.go uses of b.go is one arrow for each way to use it, alone in its pair.
func TestArrows(t *testing.T) {
	const defined = `package p
type T struct{ field int }
func (T) method() {}
type I interface{ m() }
func function() T { return T{} }
const first, second = 1, 2
var variable T
type G[P any] struct{ generic P }
`
	for _, c := range []struct{ text, want string }{
		{"func f() { function() }", "function"},
		{"func f() { _ = second }", "first.second"},
		{"type U T", "T"},
		{"type U struct{ T }", "T"},
		{"func f() { _ = T{field: 1} }", "T, T.field"},
		{"func f(i I) { i.m() }", "I, I.m"},
		{"func f() { variable.method() }", "T.method, variable"},
		{"func f(g G[int]) { _ = g.generic }", "G, G.generic"},
		{"func f() { T := 1; _ = T }", ""},
		{"func g() {}; func f() { g() }", ""},
	} {
		g := graphOf(compiled(t, "p/a.go", "package p\n"+c.text+"\n", "p/b.go", defined))
		got := g.backNames([]int{1, 0}) // with b.go first every arrow from a.go runs back
		if c.want == "" {
			finds(t, got)
		} else {
			finds(t, got, "a.go -> b.go: "+c.want)
		}
	}
}

func TestOrder(t *testing.T) {
	ring := compiled(t,
		"p/a.go", "package p\nfunc a() { b() }\n",
		"p/b.go", "package p\nfunc b() { c() }\n",
		"p/c.go", "package p\nfunc c() { d(); a() }\n",
		"p/d.go", "package p\nfunc d() {}\n",
		"p/e.go", "package p\nfunc E() {}\n")
	g := graphOf(ring)
	order := g.order()
	if back, all := g.back(order); back != 1 || all != 5-1 {
		t.Errorf("order %v: %d of %d arrows run back, want 1 of 4", order, back, all)
	}
	if got := g.share(order); got != 25 {
		t.Errorf("share %v, want 25", got)
	}
	if e := slices.Index(g.files, "e.go"); order[0] != e {
		t.Errorf("order %v, want the exported name's file, %d, first", order, e)
	}
	if again := graphOf(ring).order(); !slices.Equal(order, again) {
		t.Errorf("orders %v and %v of the same files", order, again)
	}
}

// Against every order: the search must not miss a better one.
func TestOrderIsTheBest(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		const files = 6
		g := &graph{files: make([]string, files), public: make([]int, files)}
		for range files {
			row := make([]int, files)
			for i := range row {
				row[i] = random.IntN(2)
			}
			g.arrows = append(g.arrows, row)
		}
		order := []int{0, 1, 2, 3, 4, 5}
		best, _ := g.back(order)
		var try func(n int)
		try = func(n int) {
			if back, _ := g.back(order); back < best {
				best = back
			}
			for i := n; i < files; i++ {
				order[n], order[i] = order[i], order[n]
				try(n + 1)
				order[n], order[i] = order[i], order[n]
			}
		}
		try(0)
		if got, _ := g.back(g.order()); got != best {
			t.Errorf("%d arrows run back, %d in the best order", got, best)
		}
	}
}

func TestMoves(t *testing.T) {
	g := graphOf(compiled(t,
		"p/a.go", "package p\ntype t int\nfunc (*t) m() { b() }\nfunc (t) n() {}\n",
		"p/b.go", "package p\nfunc b() { new(t).m() }\n"))
	finds(t, g.moves([]int{0, 1}), "1 saved: t with its methods from a.go to b.go", "1 saved: b from b.go to a.go")
	finds(t, strings.Split(strings.TrimSpace(g.describe([]int{0, 1})), "\n"),
		"2 files, 2 arrows, 1 run back: 50.0 %", "in reading order", "a.go                   0 from   1 to",
		"b.go                   1 from   0 to", "arrows back", "2 names: b.go -> a.go: (*t).m, t",
		"declarations", "1 saved: t with", "1 saved: b from")
	if back, all := g.back([]int{0, 1}); back != 1 || all != 2 {
		t.Errorf("%d of %d arrows run back after moves were tried, want 1 of 2", back, all)
	}
}

func TestExportsFinds(t *testing.T) {
	finds(t, checkExports("a", 3, map[string]int{"a": 3}))
	finds(t, checkExports("a", 4, map[string]int{"a": 3}), "exports 4 names besides fields, at most 3")
	finds(t, checkExports("a", 2, map[string]int{"a": 3}), "lower the limit to 2")

	p := compiled(t, "p/a.go", `package p
type T struct{ Field int; embedded }
func (T) M() {}
func (*T) P() {}
func (T) unexported() {}
type embedded struct{}
func (embedded) Promoted() {}
type I interface{ N() }
type Alias = hidden
type Again = hidden
type hidden struct{}
func (hidden) H() {}
type Std = error
func F() {}
func g() {}
const C, d = 1, 2
var V, w int
`)
	want := []string{"Again", "Again.H", "Alias", "C", "F", "I", "I.N", "Std", "T", "T.M", "T.P", "T.Promoted", "V"}
	if got := exportedNames(p.pkg); !slices.Equal(got, want) {
		t.Errorf("exported names %v, want %v", got, want)
	}
}

func TestLocksFinds(t *testing.T) {
	tr := fixture(t, "conn/a.go", `package conn
type T struct {
	a, b  sync.Mutex
	inner struct{ c []sync.RWMutex }
	sync.Mutex
	other *sync.Mutex
	once  sync.Once
}
var d sync.Mutex
func f(p *sync.Mutex) { var e sync.Mutex }
`, "conn/a_test.go", "package conn\nvar x sync.Mutex\n")
	doc := func(names ...string) string {
		return "| memory | `x.y` |\n\n| lock | guards |\n|---|---|\n| `" + strings.Join(names, "`, `") +
			"` | `no.name` |\n| `conn.T.b` | |\n\n| other | `no.name` |\n"
	}
	all := []string{"conn.T.a", "conn.T.inner.c", "conn.T.Mutex", "conn.d", "conn.f.e"}
	finds(t, checkLocks(tr, doc(all...)))
	finds(t, checkLocks(tr, doc(all[1:]...)), "conn/a.go:3: add `conn.T.a`")
	finds(t, checkLocks(tr, doc(append(all, "conn.T.gone", "conn.d")...)), "take `conn.T.gone` out", "`conn.d` is in the table of locks twice")
	finds(t, checkLocks(tr, "no table"), "no table")
}

// TestTheTreeIsRead keeps the checks from passing because they see nothing.
func TestTheTreeIsRead(t *testing.T) {
	tr := load(t)
	for _, want := range []string{"internal/arch/arch_test.go", "internal/leak/leak.go"} {
		if !tr.has(want) {
			t.Errorf("%s was not read", want)
		}
	}
	for _, s := range tr.files {
		if strings.HasPrefix(s.path, "benchmarks/") || s.ast.Package == token.NoPos {
			t.Errorf("%s should not have been read", s.path)
		}
	}
	if all := loadAll(t); !all.has("benchmarks/cmd/load/main.go") || !all.has("internal/leak/leak.go") {
		t.Error("not all modules were read")
	}
}

func (tr *tree) has(path string) bool {
	return slices.ContainsFunc(tr.files, func(s *source) bool { return s.path == path })
}

// An importerOf imports the one package that it has.
type importerOf struct{ pkg *types.Package }

func (i importerOf) Import(string) (*types.Package, error) { return i.pkg, nil }

func TestExamplesFinds(t *testing.T) {
	check := func(dir, text string, imports types.Importer) *program {
		t.Helper()
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, dir+".go", text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		p, err := typecheck(fset, dir, []*ast.File{f}, imports)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pkg := check("p", `package p
		type T struct{}
		func (T) Shown() {}
		func (T) Hidden() {}
		func (T) Titled() {}
		func (T) Error() string { return "" }
		type Plug interface{ Do(); Rest() }
		type G[X any] struct{}
		func (*G[X]) Shown() {}
		func (*G[X]) Hidden() {}
		func F() {}
		func InHelper() {}
		func InTest() {}
		const InText = 1
	`, nil).pkg
	tests := check("p_test", fmt.Sprintf(`package p_test
		import p %q
		type plug struct{ next p.Plug }
		func (plug) Do() {}
		func (plug) Rest() {}
		func helper() { p.InHelper() }
		func ExampleT() { p.T{}.Shown(); helper(); p.F(); println("p.InText") }
		func ExampleT_Titled_twice() {}
		func ExampleF() { var _ = plug{}; new(p.G[int]).Shown() }
		func TestF() { p.InTest(); p.T{}.Hidden() }
	`, module+"/p"), importerOf{pkg})
	finds(t, notMentioned(exportedNames(pkg), pkg, tests), "T.Hidden", "G.Hidden", "InTest", "InText")
}

func TestPackageDocFinds(t *testing.T) {
	finds(t, checkPackageDoc("a/b", "Package b turns stones into bread.\n"))
	finds(t, checkPackageDoc("a/b", "Package b.\n"), "does not say")
	finds(t, checkPackageDoc("a/b", "Stones are turned into bread here.\n"), "does not say")
}
