// Command suites runs the test suites that others wrote against sluice's gRPC, and programs of
// theirs against it: see the README for what each must pass. It installs their programs itself,
// at the versions of go.mod, dubbo/go.mod and js/package-lock.json; npm, nghttp and h2load must be
// there.
//
//	go run ./cmd/suites               # all
//	go run ./cmd/suites -run h2spec   # those whose names match
//	go run ./cmd/suites -list
//
// It must be run in its module, and ends with status 1 if anything is not as it must be. What
// does not run is a failure, never a skip, with one exception: a server of dubbo-go's needs a
// network namespace, which root alone may make. Where that is not permitted it is left out, with a
// word, unless SLUICE_REQUIRE_NETNS is set.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	var (
		pattern = flag.String("run", "", "run the suites whose names match this regular expression")
		dir     = flag.String("dir", "", "keep the programs and outputs in this directory; empty: a temporary one")
		other   = flag.String("subject", "", "test this program, which has subject's commands, instead")
		list    = flag.Bool("list", false, "print the names of the suites")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *list {
		for _, s := range suites() {
			fmt.Println(s.name)
		}
		return
	}
	if err := run(ctx, *pattern, *dir, *other); err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(1)
	}
}

// A suite is one of the tests.
type suite struct {
	name string
	// needs are the programs that it runs, beside those of the system's.
	needs []tool
	// run runs it. It returns what it has found to be right, in a few words, or what is wrong.
	run func(ctx context.Context, b *bench) (string, error)
}

func suites() []suite {
	return []suite{
		{"conformance server", []tool{subject, conformance}, conformanceServer},
		{"conformance client", []tool{subject, conformance}, conformanceClient},
		{"contrib server", []tool{subject, conformance}, contribServer},
		{"contrib client", []tool{subject, conformance}, contribClient},
		{"contrib native", []tool{subject, conformance}, contribNative},
		{"grpc-go client", []tool{subject, grpcClient}, grpcGoClient},
		{"grpc-go server", []tool{subject, grpcServer}, grpcGoServer},
		{"grpc-js client", []tool{subject, js}, grpcJSClient},
		{"grpc-js server", []tool{subject, js}, grpcJSServer},
		{"dubbo-go client", []tool{subject, dubboGo}, dubboGoClient},
		{"dubbo-go server", []tool{subject, dubboGo}, dubboGoServer},
		{"buf", []tool{js}, bufGenerates},
		{"protoc", []tool{generator}, protocGenerates},
		{"docs/idl.md", []tool{js}, idlPage},
		{"grpcurl", []tool{greeterProgram, grpcurl}, grpcurlGreeter},
		{"h2spec", []tool{subject, h2spec}, h2specServer},
		{"nghttp", []tool{subject}, nghttp},
		{"h2load", []tool{subject}, h2load},
	}
}

// limit is how long one suite, or one installation, may take.
const limit = 5 * time.Minute

func run(ctx context.Context, pattern, dir, other string) (err error) {
	which, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "suites"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	b, err := newBench(ctx, dir)
	if err != nil {
		return err
	}
	if other != "" {
		b.use(other)
	}
	var failed []string
	ran := 0
	for _, s := range suites() {
		if !which.MatchString(s.name) {
			continue
		}
		ran++
		if err := b.test(ctx, s); err != nil {
			fmt.Printf("%v\n", err)
			failed = append(failed, s.name)
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ran == 0:
		return fmt.Errorf("no suite matches %q", pattern)
	case failed != nil:
		return fmt.Errorf("not as they must be: %q", failed)
	}
	return nil
}

// test installs what a suite needs, runs it, and prints how long both took.
func (b *bench) test(ctx context.Context, s suite) error {
	for _, t := range s.needs {
		if err := b.install(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	found, err := s.run(ctx, b)
	fmt.Printf("%-20s %6.1f s  %s\n", s.name, time.Since(begin).Seconds(), found)
	return err
}
