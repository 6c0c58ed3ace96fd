package guide_test

import (
	"bytes"
	"context"
	"go/format"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
)

const (
	readmePage = "README.md"
	startPage  = "docs/getting-started.md"
)

// port is where the programs of the pages meet.
const port = "127.0.0.1:7000"

// A module is made of the files on pages, as a reader makes one.
type module struct {
	dir   string
	where map[string]string // page to the folder of its files
}

// newModule writes the files of both pages into one module, which uses this repository.
func newModule(t *testing.T) *module {
	t.Helper()
	m := &module{dir: t.TempDir(), where: map[string]string{startPage: ".", readmePage: "readme"}}
	for page, dir := range m.where {
		for _, b := range blocks(t, page) {
			if name := b.file(); name != "" {
				if good, err := format.Source([]byte(b.text)); err != nil || string(good) != b.text {
					t.Errorf("%s: %s is not formatted: %v", page, name, err)
				}
				m.write(t, filepath.Join(dir, name), b.text)
			}
		}
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	// The versions are this repository's, so that nothing has to be asked for.
	mod := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(readPage(t, "go.mod"), "module example.com/prices")
	m.write(t, "go.mod", mod+"\nrequire github.com/sluicerpc/sluice v0.0.0\n\nreplace github.com/sluicerpc/sluice => "+here+"\n")
	m.write(t, "go.sum", readPage(t, "go.sum"))
	return m
}

func (m *module) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in the module, which must succeed.
func (m *module) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = m.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// meetAt has the programs meet at another address than the pages say.
func (m *module) meetAt(t *testing.T, page, addr string) {
	t.Helper()
	n := 0
	for _, b := range blocks(t, page) {
		if name := b.file(); name != "" && strings.Contains(b.text, port) {
			m.write(t, filepath.Join(m.where[page], name), strings.ReplaceAll(b.text, port, addr))
			n++
		}
	}
	if n != 2 {
		t.Fatalf("%s: %d programs name %s, want a server and a client", page, n, port)
	}
}

// outputOf is the block of text that stands behind the file of that name.
func outputOf(t *testing.T, page, file string) string {
	t.Helper()
	seen := false
	for _, b := range blocks(t, page) {
		seen = seen || b.file() == file
		if seen && b.language == "text" {
			return b.text
		}
	}
	t.Fatalf("%s: no text behind %s", page, file)
	return ""
}

// TestPrograms makes the programs of the README and of the first steps, passes the tests
// that the first steps show, and runs each server with its client.
func TestPrograms(t *testing.T) {
	m := newModule(t)
	addrs := map[string]string{}
	for page := range m.where {
		addrs[page] = freeAddr(t)
		m.meetAt(t, page, addrs[page])
	}
	m.run(t, "go", "vet", "./...")
	m.run(t, "go", "test", "-vet=off", ".") // which vet has seen
	m.run(t, "go", "build", "-ldflags", "-s -w", "-o", "bin/", "./server", "./client")
	m.run(t, "go", "build", "-ldflags", "-s -w", "-o", "bin/readme/", "./readme/server", "./readme/client")
	for page, dir := range m.where {
		t.Run(page, func(t *testing.T) {
			server := start(t, filepath.Join(m.dir, "bin", dir, "server"), addrs[page])
			got := m.run(t, filepath.Join(m.dir, "bin", dir, "client"))
			if page == startPage {
				server.stop(t)
			}
			if want := outputOf(t, page, "client/main.go"); got != want {
				t.Errorf("the client prints\n%s\nand the page says\n%s", got, want)
			}
		})
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A running is a program under way.
type running struct {
	cmd  *exec.Cmd
	errs *bytes.Buffer
}

// start runs a server and waits until it listens.
func start(t *testing.T, program, addr string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(program), errs: &bytes.Buffer{}}
	r.cmd.Stdout, r.cmd.Stderr = r.errs, r.errs
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	for end := time.Now().Add(testkit.Patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen at %s: %v", program, addr, err)
		}
	}
}

// stop interrupts a server, which must then end by itself, without an error.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", r.cmd.Path, err, r.errs.String())
	}
}
