package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// generator is the plugin of protobuf's compilers.
const generator tool = "github.com/sluicerpc/sluice/cmd/protoc-gen-go-sluice"

// generatorTests is the directory of the .proto files that the generator is tested with.
const generatorTests = "cmd/protoc-gen-go-sluice/internal"

// bufGenerates has buf generate the code of the repository again, as buf.gen.yaml says beside the
// .proto files: by `go run` and by `go tool`. It must be what is there.
func bufGenerates(ctx context.Context, b *bench) (string, error) {
	buf := filepath.Join(b.path(js), "node_modules", ".bin", "buf")
	files := 0
	for _, dir := range []string{generatorTests, "cmd/greeter"} {
		dir = filepath.Join(b.module, "..", dir)
		out, err := os.MkdirTemp(b.dir, "buf")
		if err != nil {
			return "", err
		}
		if _, err := b.output(ctx, dir, buf, "generate", "-o", out); err != nil {
			return "", err
		}
		n, err := sameFiles(out, dir)
		if err != nil {
			return "", err
		}
		files += n
	}
	const set = "files.binpb"
	out := filepath.Join(b.dir, "descriptors")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(b.module, "..", generatorTests)
	if _, err := b.output(ctx, dir, buf, "build", "--as-file-descriptor-set", "-o", filepath.Join(out, set)); err != nil {
		return "", err
	}
	n, err := sameFiles(out, dir)
	return fmt.Sprintf("%d files", files+n), err
}

// protocGenerates has protoc generate our code from the .proto files that it can read, which are
// those without editions.
func protocGenerates(ctx context.Context, b *bench) (string, error) {
	dir := filepath.Join(b.module, "..", generatorTests)
	out, err := os.MkdirTemp(b.dir, "protoc")
	if err != nil {
		return "", err
	}
	_, err = b.output(ctx, dir, "protoc", "--plugin=protoc-gen-go-sluice="+b.path(generator),
		"--go-sluice_out="+out, "--go-sluice_opt=paths=source_relative", "shapespb/shapes.proto", "namespb/names.proto")
	if err != nil {
		return "", err
	}
	n, err := sameFiles(out, dir)
	return fmt.Sprintf("%d files", n), err
}

// sameFiles compares the files in out with those of the same names in dir. It returns how many
// there are, which must be some.
func sameFiles(out, dir string) (n int, err error) {
	var errs []error
	walk := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, strings.TrimPrefix(path, out))
		want, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			errs = append(errs, errors.Join(fmt.Errorf("%s is generated otherwise now", name), err))
		}
		return nil
	}
	if err := filepath.WalkDir(out, walk); err != nil {
		return n, err
	}
	if n == 0 {
		return 0, fmt.Errorf("nothing is generated for %s", dir)
	}
	return n, errors.Join(errs...)
}
