package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// loggers are the packages that log.
var loggers = []string{"actor", "admin", "conn", "frame", "frame/native", "frame/strm", "frame/seastar", "frame/triple", "kernel", "rpc", "rpc/codec", "rpc/protocodec", "contrib/dubbo", "contrib/grpc", "contrib/otel", "contrib/prometheus"}

// throughFunctions are the lines whose message is a parameter: by file and function of the call,
// where the arguments that are given stand.
var throughFunctions = map[string]int{"kernel/guard.go logPanic": 1}

// A logLine is one place in the code that logs.
type logLine struct {
	level, message string
	keys           []string
}

func (l logLine) String() string {
	keys := "–"
	if len(l.keys) > 0 {
		keys = strings.Join(l.keys, ", ")
	}
	return fmt.Sprintf("| %s | `%s` | %s |", l.level, l.message, keys)
}

// The page lists every line that the library logs, with its level and keys, and no other; and each
// key.
func TestOperationsHasTheLogs(t *testing.T) {
	page := readPage(t, operationsPage)
	var got, keys []string
	for _, row := range tables(t, page, "logs") {
		got = append(got, fmt.Sprintf("| %s | %s | %s |", row[0], row[1], row[2]))
	}
	for _, row := range tables(t, page, "keys") {
		keys = append(keys, spans(row[0])...)
	}
	used := map[string]bool{}
	var want []string
	for _, l := range logLines(t) {
		want = append(want, l.String())
		for _, k := range l.keys {
			used[k] = true
			if !slices.Contains(keys, k) {
				t.Errorf("the key %q of %s is not on the page", k, l)
			}
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("not on the page: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("only on the page: %s", g)
		}
	}
	for _, k := range keys {
		if !used[k] {
			t.Errorf("no line has the key %q", k)
		}
	}
}

// logLines finds the calls of a slog.Logger's methods.
func logLines(t *testing.T) (found []logLine) {
	t.Helper()
	for _, dir := range loggers {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fd, ok := d.(*ast.FuncDecl); ok {
					found = append(found, linesOf(t, dir+"/"+filepath.Base(file), fd)...)
				}
			}
		}
	}
	return found
}

var levels = map[string]string{"Debug": "DEBUG", "Info": "INFO", "Warn": "WARN", "Error": "ERROR"}

// linesOf finds them in one function.
func linesOf(t *testing.T, name string, fd *ast.FuncDecl) (found []logLine) {
	ast.Inspect(fd, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if at, ok := throughFunctions[name+" "+called(c)]; ok && fd.Name.Name != called(c) {
			args := c.Args[at:] // message, key of the name, the name, peer, value
			found = append(found, logLine{"ERROR", text(args[0]), []string{text(args[1]), "peer", "panic", "stack"}})
			return true
		}
		s, ok := c.Fun.(*ast.SelectorExpr)
		if !ok || !isLogger(s.X) {
			return true
		}
		method, context := strings.CutSuffix(s.Sel.Name, "Context")
		level, ok := levels[method]
		if !ok {
			if s.Sel.Name != "Handler" && s.Sel.Name != "Enabled" {
				t.Errorf("%s: %s calls %s of a logger, which this test does not read", name, fd.Name.Name, s.Sel.Name)
			}
			return true
		}
		args := c.Args
		if context {
			args = args[1:]
		}
		if throughFunctions[name+" "+fd.Name.Name] > 0 {
			return true
		}
		l := logLine{level: level, message: message(args[0])}
		for i := 1; i < len(args); i += 2 {
			l.keys = append(l.keys, text(args[i]))
		}
		found = append(found, l)
		return true
	})
	return found
}

// isLogger reports whether an expression is called like one: x.logger, o.Logger, c.Logger().
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.CallExpr:
		return strings.EqualFold(called(x), "logger")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "logger")
	case *ast.Ident:
		return strings.EqualFold(x.Name, "logger")
	}
	return false
}

// called is the name of the function or method that is called.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// text is a string literal, "?" for anything else, which is on no page.
func text(x ast.Expr) string {
	if lit, ok := x.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if s, err := strconv.Unquote(lit.Value); err == nil {
			return s
		}
	}
	return "?"
}

// message is a literal, with … for what is put behind it.
func message(x ast.Expr) string {
	more := ""
	for {
		b, ok := x.(*ast.BinaryExpr)
		if !ok {
			return text(x) + more
		}
		x, more = b.X, "…"
	}
}
