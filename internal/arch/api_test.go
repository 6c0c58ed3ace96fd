package arch

import (
	"flag"
	"fmt"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var updateAPI = flag.Bool("update-api", false, "write docs/api from the sources")

// public are the packages that carry a compatibility promise.
var public = []string{"admin", "fleet", "kernel", "kernel/kerneltest", "metadata", "retry", "rpc", "rpc/codec", "status"}

// TestAPI compares the declarations of the public packages with those in docs/api. A change
// that is meant is accepted by
//
//	go test ./internal/arch -run API -update-api
//
// and is seen by whoever reads the commit.
func TestAPI(t *testing.T) {
	programs := loadPrograms(t, public...)
	for _, dir := range public {
		t.Run(dir, func(t *testing.T) {
			got := declarations(programs[dir].pkg)
			file := filepath.Join(root(t), "docs", "api", strings.ReplaceAll(dir, "/", "_")+".txt")
			if *updateAPI {
				if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			report(t, compareAPI(strings.Split(strings.TrimSpace(string(text)), "\n"), got))
		})
	}
}

// compareAPI tells what is only in the old and what is only in the new declarations.
func compareAPI(old, now []string) (diff []string) {
	for _, d := range old {
		if !slices.Contains(now, d) {
			diff = append(diff, "gone: "+d)
		}
	}
	for _, d := range now {
		if !slices.Contains(old, d) {
			diff = append(diff, "new: "+d)
		}
	}
	return diff
}

func TestCompareAPI(t *testing.T) {
	got := compareAPI([]string{"func A()", "func B()"}, []string{"func B()", "func B(n int)"})
	if want := []string{"gone: func A()", "new: func B(n int)"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// declarations lists what a package exports, a line each: fields and methods too, also those
// that an alias stands for.
func declarations(pkg *types.Package) (lines []string) {
	name := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, n := range pkg.Scope().Names() {
		obj := pkg.Scope().Lookup(n)
		if !obj.Exported() {
			continue
		}
		switch o := obj.(type) {
		case *types.Const:
			add("const %s %s = %s", n, types.TypeString(o.Type(), name), o.Val())
		case *types.TypeName:
			typ := types.Unalias(o.Type())
			add("type %s %s", n, kindOf(typ))
			for m := range types.NewMethodSet(receiver(typ)).Methods() {
				if m.Obj().Exported() {
					add("method (%s) %s%s", n, m.Obj().Name(), strings.TrimPrefix(types.TypeString(m.Type(), name), "func"))
				}
			}
			if st, ok := typ.Underlying().(*types.Struct); ok {
				for f := range st.Fields() {
					if f.Exported() {
						add("field %s.%s %s", n, f.Name(), types.TypeString(f.Type(), name))
					}
				}
			}
		default:
			add("%s", types.ObjectString(obj, name))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// kindOf says what a type is, without its fields and methods.
func kindOf(typ types.Type) string {
	named, ok := typ.(*types.Named)
	if !ok {
		return typ.String()
	}
	params := ""
	if n := named.TypeParams().Len(); n > 0 {
		params = fmt.Sprintf(" of %d types", n)
	}
	switch u := typ.Underlying().(type) {
	case *types.Struct:
		return "struct" + params
	case *types.Interface:
		return "interface" + params
	default:
		return types.TypeString(u, (*types.Package).Name) + params
	}
}

// linked names the modules that a program which imports kernel has in it, each with what
// brings it.
var linked = map[string]string{
	"github.com/sluicerpc/sluice":       "",
	"github.com/panjf2000/gnet/v2":      "the event loops",
	"github.com/panjf2000/ants/v2":      "gnet",
	"go.uber.org/multierr":              "gnet's log",
	"go.uber.org/zap":                   "gnet's log",
	"gopkg.in/natefinch/lumberjack.v2":  "gnet's log",
	"golang.org/x/sync":                 "gnet",
	"golang.org/x/sys":                  "system calls of the event loops",
	"golang.org/x/time":                 "rates of the guards against abuse",
	"github.com/valyala/bytebufferpool": "buffers",
	"github.com/klauspost/compress":     "compressed messages",
}

// TestLinkedModules keeps what comes with sluice from growing unnoticed.
func TestLinkedModules(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./kernel")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"": true}
	for _, m := range strings.Split(string(out), "\n") {
		if _, ok := linked[m]; !ok && !seen[m] {
			t.Errorf("kernel brings %s, which is not in linked", m)
		}
		seen[m] = true
	}
	for m := range linked {
		if !seen[m] {
			t.Errorf("linked has %s, which kernel does not bring", m)
		}
	}
}

// consumed are the modules that are in the build list of a program which imports kernel and
// nothing else: what go list -m all says there. Those that linked does not have are for tests,
// or for packages that the program does not import.
var consumed = []string{
	"github.com/klauspost/compress", "github.com/panjf2000/ants/v2", "github.com/panjf2000/gnet/v2",
	"github.com/pierrec/lz4/v4", "github.com/sluicerpc/sluice", "github.com/valyala/bytebufferpool",
	"go.uber.org/goleak", "go.uber.org/multierr", "go.uber.org/zap", "golang.org/x/net", "golang.org/x/sync", "golang.org/x/sys",
	"golang.org/x/time", "google.golang.org/protobuf", "gopkg.in/natefinch/lumberjack.v2", "pgregory.net/rapid",
}

func TestModulesOfAConsumer(t *testing.T) {
	dir := t.TempDir()
	sums, err := os.ReadFile(filepath.Join(root(t), "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":  "module example.com/consumer\n\ngo 1.25.0\n\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + root(t) + "\n",
		"go.sum":  string(sums),
		"main.go": "package main\n\nimport _ \"" + module + "/kernel\"\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "list", "-mod=mod", "-m", "-f", "{{if not .Main}}{{.Path}}{{end}}", "all")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report(t, compareAPI(consumed, strings.Fields(string(out))))
}
