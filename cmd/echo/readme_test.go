package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const readme = "../../README.md"

func readReadme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// snippets are the README's pieces of Go, in their order.
func snippets(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readReadme(t), -1) {
		found = append(found, m[1])
	}
	if len(found) != 4 {
		t.Fatalf("%d snippets, want server, handler, client and typed streams", len(found))
	}
	return found
}

// program makes a snippet one: statements become the body of main.
func program(statements, declarations string) string {
	body := declarations + "\nfunc main() {\n" + statements + "}\n"
	text := "package main\n\nimport (\n"
	for _, path := range []string{"context", "fmt", "log", "math", "github.com/sluicerpc/sluice/actor", "github.com/sluicerpc/sluice/kernel", "github.com/sluicerpc/sluice/metadata", "github.com/sluicerpc/sluice/pool", "github.com/sluicerpc/sluice/rpc", "github.com/sluicerpc/sluice/status"} {
		if strings.Contains(body, filepath.Base(path)+".") {
			text += fmt.Sprintf("\t%q\n", path)
		}
	}
	return text + ")\n" + body
}

// buildSnippet compiles a program as if it were a package of this module.
func buildSnippet(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{
		"Replace": map[string]string{filepath.Join(here, "readme-"+name, "main.go"): file},
	})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, name)
	if err := build(out, "-overlay", overlayFile, "./readme-"+name); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
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

// background runs a program until the test is over.
func background(t *testing.T, name string) {
	t.Helper()
	cmd := exec.Command(name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// TestReadme runs the README's server, with either handler, and its client.
func TestReadme(t *testing.T) {
	all := snippets(t)
	server, handler, client := all[0], all[1], all[2]
	const port = "127.0.0.1:7000"
	if !strings.Contains(server, port) || !strings.Contains(client, port) {
		t.Fatalf("server and client don't meet at %s", port)
	}
	inline := regexp.MustCompile(`(?s)srv\.Handle\("echo", func.*?\n}\)\n`)
	if !inline.MatchString(server) {
		t.Fatal("the server's handler is not where it is looked for")
	}
	for name, text := range map[string]string{
		"all":    program(server, ""),
		"select": program(inline.ReplaceAllString(server, "srv.Handle(\"echo\", echo)\n"), handler),
	} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			background(t, buildSnippet(t, "server", strings.ReplaceAll(text, port, addr)))
			await(t, addr)
			var out, errs bytes.Buffer
			cmd := exec.Command(buildSnippet(t, "client", program(strings.ReplaceAll(client, port, addr), "")))
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil || out.String() != "there\nand\nback\n" {
				t.Errorf("the client: %v, %q, %q", err, out.String(), errs.String())
			}
		})
	}
}

// TestReadmesTypedStreams runs both sides of the README's typed streams.
func TestReadmesTypedStreams(t *testing.T) {
	addr := freeAddr(t)
	text := program(fmt.Sprintf(`	ctx := context.Background()
	srv, err := kernel.NewServer(nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := rpc.HandleUnary(srv, "lengths", lengths, nil); err != nil {
		log.Fatal(err)
	}
	go srv.ListenAndServe(ctx, %[1]q)
	client, err := kernel.NewClient(%[1]q, &kernel.ClientOptions{Backoff: kernel.Backoff{First: 1000}})
	if err != nil {
		log.Fatal(err)
	}
	for _, err = client.Conn(ctx); err != nil; _, err = client.Conn(ctx) { // until it listens
	}
	if err := ask(ctx, client); err != nil {
		log.Fatal(err)
	}
`, addr), snippets(t)[3])
	out, err := exec.Command(buildSnippet(t, "typed", text)).CombinedOutput()
	if err != nil || string(out) != "5 <nil>\n" {
		t.Errorf("%v, %q", err, out)
	}
}

// await waits until a server listens on addr.
func await(t *testing.T, addr string) {
	t.Helper()
	for t.Context().Err() == nil {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatal("no server listens")
}

// TestReadmesLinksExist: every file that the README links to exists, and the
// first commands that it shows exist.
func TestReadmesLinksExist(t *testing.T) {
	text := readReadme(t)
	prose := regexp.MustCompile("(?s)```go\n.*?```").ReplaceAllString(text, "")
	links := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`).FindAllStringSubmatch(prose, -1)
	if len(links) < 10 {
		t.Errorf("only %d links", len(links))
	}
	for _, m := range links {
		if strings.Contains(m[1], "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(readme), m[1])); err != nil {
			t.Errorf("a link to %s, which does not exist", m[1])
		}
	}
	_, shell, _ := strings.Cut(text, "```sh\n")
	for _, m := range regexp.MustCompile(`(?m)^go run \./cmd/echo (\w+)`).FindAllStringSubmatch(shell, -1) {
		if !slices.ContainsFunc(commands(), func(c command) bool { return c.name == m[1] }) {
			t.Errorf("the README runs %q, which is not a command", m[1])
		}
	}
}
