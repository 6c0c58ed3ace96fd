package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A bench is where the suites run: the module, and a directory with their programs.
type bench struct {
	module    string // the module's directory
	dir       string
	installed map[tool]string // the program's path
}

func newBench(ctx context.Context, dir string) (*bench, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, err
	}
	module := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(module, "cmd", "suites")); err != nil {
		return nil, fmt.Errorf("%s is not the module of the suites: %w", module, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return &bench{module: module, dir: dir, installed: map[tool]string{}}, os.MkdirAll(dir, 0o755)
}

// A tool is a program that is installed: a Go package, or js.
type tool string

const (
	subject     tool = "github.com/sluicerpc/sluice/interop/cmd/subject"
	conformance tool = "connectrpc.com/conformance/cmd/connectconformance"
	grpcClient  tool = "google.golang.org/grpc/interop/client"
	grpcServer  tool = "google.golang.org/grpc/interop/server"
	h2spec      tool = "github.com/summerwind/h2spec/cmd/h2spec"
	grpcurl     tool = "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	dubboGo     tool = "github.com/sluicerpc/sluice/interop/dubbo" // in a module of its own
	js          tool = "js"
)

// install installs a tool once, and prints how long that took.
func (b *bench) install(ctx context.Context, t tool) error {
	if b.path(t) != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	path := filepath.Join(b.dir, strings.ReplaceAll(string(t), "/", "_"))
	var err error
	if t == js {
		err = b.installJS(ctx, path)
	} else {
		// Without what a debugger needs, linking takes half as long.
		_, err = b.output(ctx, b.moduleOf(t), "go", "build", "-ldflags=-s -w", "-o", path, string(t))
	}
	if err != nil {
		return err
	}
	b.installed[t] = path
	fmt.Printf("%-20s %6.1f s  installed\n", "", time.Since(begin).Seconds())
	return nil
}

// path is where an installed tool is: a program, or the directory of js.
func (b *bench) path(t tool) string { return b.installed[t] }

// use has a program stand for ours.
func (b *bench) use(program string) { b.installed[subject] = program }

// installJS copies the programs in js to dir, and has npm install what they need beside them,
// as the lock file says.
func (b *bench) installJS(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(b.module, "js"))); err != nil {
		return err
	}
	_, err := b.output(ctx, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	return err
}

// command makes a command that is killed with its children when ctx ends.
func (b *bench) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GREETER_PROTO="+filepath.Join(b.module, "greeter", "greeterpb", "greeter.proto"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs a command and returns all that it prints. An error has the end of that.
func (b *bench) output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := b.command(ctx, dir, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), failure(filepath.Base(name), err, out)
	}
	return string(out), nil
}

// failure is the error of a program that has ended badly.
func failure(name string, err error, out []byte) error {
	const most = 16 << 10
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = append([]byte("... "), out[len(out)-most:]...)
	}
	return fmt.Errorf("%s: %w\n%s", name, err, out)
}

// A process is a server that runs.
type process struct {
	cmd  *exec.Cmd
	name string
	errs bytes.Buffer
	port string
}

// serve starts a server that prints its port first.
func (b *bench) serve(ctx context.Context, dir, name string, args ...string) (*process, error) {
	p := &process{cmd: b.command(ctx, dir, name, args...), name: filepath.Base(name)}
	p.cmd.Stderr = &p.errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not say where it listens: %w", p.name, err), p.kill(), errors.New(p.errs.String()))
	}
	p.port = strings.TrimSpace(line)
	go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the process
	return p, nil
}

func (p *process) kill() error {
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait() // it was killed
	return err
}

// stop ends the server as an operator does. It must go in order, with nothing on its standard
// error.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s has ended before it was asked to: %w\n%s", p.name, errors.Join(err, p.cmd.Wait()), p.errs.String())
	}
	if err := p.cmd.Wait(); err != nil {
		return failure(p.name, err, p.errs.Bytes())
	}
	return nil
}

// withSubject runs f beside a server of ours. That must outlive f, and end in order.
func (b *bench) withSubject(ctx context.Context, f func(port string) (string, error)) (string, error) {
	return b.beside(ctx, "serve", f)
}

// beside is withSubject for a server that subject has a command for.
func (b *bench) beside(ctx context.Context, command string, f func(port string) (string, error)) (string, error) {
	p, err := b.serve(ctx, b.dir, b.path(subject), command)
	if err != nil {
		return "", err
	}
	found, err := f(p.port)
	return found, errors.Join(err, p.stop())
}
