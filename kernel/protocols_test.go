package kernel_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
)

// A foreign protocol is one of another system, over which the one suite runs as
// far as the protocol can carry it.
type foreign struct {
	name  string
	proto kernel.Protocol
	// cannot names the tests that ask for what the protocol does not have, or, with
	// a slash, a part of one, and says what that is.
	cannot map[string]string
}

var foreigns = []foreign{
	{"brpc", strm.Protocol{}, brpcCannot},
}

// brpcCannot is what docs/interop.md says of brpc, as tests.
var brpcCannot = map[string]string{}

// start connects a server that speaks the protocol beside sluice's own with a
// client that speaks it.
func (p foreign) start(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
	t.Helper()
	var s kernel.ServerOptions
	if so != nil {
		s = *so
	}
	var c kernel.ClientOptions
	if co != nil {
		c = *co
	}
	s.Protocols = []kernel.Protocol{native.Protocol{}, p.proto}
	c.Protocols = []kernel.Protocol{p.proto}
	return loops(t, &s, &c)
}

// lacks tells whether a test is one of those that the protocol can't carry.
func (p foreign) lacks(test string) bool {
	for {
		if _, ok := p.cannot[test]; ok {
			return true
		}
		i := strings.LastIndexByte(test, '/')
		if i < 0 {
			return false
		}
		test = test[:i]
	}
}

// What a protocol is said not to carry must be a test, or the list has aged.
func TestForeignListsNameTests(t *testing.T) {
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				tests[fn.Name.Name] = true
			}
		}
	}
	for _, p := range foreigns {
		for name, why := range p.cannot {
			top, _, _ := strings.Cut(name, "/")
			if !tests[top] || why == "" {
				t.Errorf("%s: %q: %q", p.name, name, why)
			}
		}
	}
}

// A call's request comes before anybody could have said how much may come.
func TestLargeCalls(t *testing.T) {
	overAll(t, nil, nil, func(t *testing.T, w *world) {
		w.srv.Handle("a/echo", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			return s.Send(ctx, m)
		})
		for _, n := range []int{0, 1, 9 << 10, 100 << 10, 3 << 20} {
			reply, err := w.client.Call(w.ctx, "a/echo", sized(n, 'x'), nil)
			if err != nil || reply.Len() != n {
				t.Fatalf("a call of %d bytes came back with %d, error %v", n, reply.Len(), err)
			}
			reply.Release()
		}
	})
}
