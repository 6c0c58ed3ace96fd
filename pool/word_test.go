package pool

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// A program for a 32-bit system does not compile, and the compiler's error says why. It
// compiled, and panicked at its first message.
func TestA32BitSystemIsACompileError(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "word.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for arch, fails := range map[string]bool{"386": true, "arm": true, "mips": true, "amd64": false, "arm64": false, "riscv64": false} {
		conf := types.Config{Sizes: types.SizesFor("gc", arch)}
		_, err := conf.Check("pool", fset, []*ast.File{f}, nil)
		if (err != nil) != fails || fails && !strings.Contains(err.Error(), "a64BitSystemIsNeeded") {
			t.Errorf("%s: %v", arch, err)
		}
	}
}
