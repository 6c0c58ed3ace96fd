package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// idlPage does what docs/idl.md says: it writes the files of the page, generates the code, and runs
// the server and the client, which must print what the page says.
func idlPage(ctx context.Context, b *bench) (found string, err error) {
	root := filepath.Join(b.module, "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "idl.md"))
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	files, output := pageFiles(strings.ReplaceAll(string(page), "127.0.0.1:7000", addr))
	dir, err := os.MkdirTemp(b.dir, "page")
	if err != nil {
		return "", err
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return "", err
		}
	}
	for _, command := range [][]string{
		{"go", "mod", "init", "example.com/hello"},
		{"go", "mod", "edit", "-require=github.com/sluicerpc/sluice@v0.0.0", "-replace=github.com/sluicerpc/sluice=" + root,
			"-tool=google.golang.org/protobuf/cmd/protoc-gen-go", "-tool=" + string(generator)},
		{"go", "mod", "tidy", "-e"}, // without the code that is still to be generated
		{filepath.Join(b.path(js), "node_modules", ".bin", "buf"), "generate"},
		{"go", "mod", "tidy"},
		{"go", "vet", "./..."},
		{"go", "build", "-o", "bin/", "./..."},
	} {
		if _, err := b.output(ctx, dir, command[0], command[1:]...); err != nil {
			return "", err
		}
	}
	server := &process{cmd: b.command(ctx, dir, filepath.Join(dir, "bin", "server")), name: "server"}
	server.cmd.Stdout, server.cmd.Stderr = &server.errs, &server.errs
	if err := server.cmd.Start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, server.kill()) }()
	if err := dialable(ctx, addr); err != nil {
		return "", err
	}
	out, err := b.output(ctx, dir, filepath.Join(dir, "bin", "client"))
	if err == nil && out != output {
		err = fmt.Errorf("the client has printed\n%s\nand the page says\n%s", out, output)
	}
	return fmt.Sprintf("%d files", len(files)), err
}

// pageFiles finds the blocks of a page whose first line names a file, and the last block of text,
// which is what a program prints.
func pageFiles(page string) (files map[string]string, output string) {
	files = map[string]string{}
	for i, block := range strings.Split(page, "```") {
		if i%2 == 0 {
			continue
		}
		language, text, _ := strings.Cut(block, "\n")
		first, _, _ := strings.Cut(text, "\n")
		name := strings.TrimLeft(first, "/# ")
		switch {
		case language == "text":
			output = text
		case name != first && strings.Contains(name, ".") && !strings.Contains(name, " "):
			files[name] = text
		}
	}
	return files, output
}
