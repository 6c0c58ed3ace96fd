// Command load drives streams against a server, of sluice or of a library it
// is compared with, and reports rates, latencies, costs and whether every
// message arrived once, in order and intact.
//
//	load demo fan                          # server and client, two processes
//	load serve                             # or one by one
//	load run fan --rate 50k --html fan.html
//	load call grpc://127.0.0.1:8888 pkg.Service/Method --file request.bin --streams 64
//	load compare before.json after.json
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/sluicerpc/sluice/benchmarks/load"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConnect     = 3
	exitSLO         = 4
	exitViolation   = 5
	exitGone        = 6
	exitInvalid     = 7
	exitWrite       = 8
	exitUnconfirmed = 9
	exitInterrupted = 130
)

const exitHelp = `Exit codes: 0 ok, 1 failed, also calls of a service, 2 bad usage, 3 can't connect, 4 SLO missed or comparison worse,
5 messages lost, duplicated, reordered or corrupted, 6 server gone in mid-run, 7 INVALID (the client
was the bottleneck), 8 a report could not be written (its figures went to standard output or error),
9 streams broke or hung, so that it is not known whether all messages arrived,
130 interrupted (with a report).

A flag begins with two dashes or one.`

// An exitError carries its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

func exit(code int, err error) error { return &exitError{code, err} }

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Serve streams of one library until interrupted."`
	Run     runCmd     `cmd:"" help:"Run a preset against a server."`
	Demo    demoCmd    `cmd:"" help:"Run a preset against a server process of its own."`
	Call    callCmd    `cmd:"" help:"Load a service of your own: unary calls or streams, over any protocol."`
	Compare compareCmd `cmd:"" help:"Say whether report B is better or worse than report A, outside the noise."`
	Report  reportCmd  `cmd:"" help:"Write a JSON report in another form."`
}

// env is a command's environment.
type env struct {
	ctx            context.Context
	args           []string
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills the process
	code := run(env{ctx, os.Args[1:], os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// exiting ends the parsing when kong wants to exit, as after --help.
type exiting int

func run(e env) (code int) {
	defer func() {
		if v := recover(); v != nil {
			c, ok := v.(exiting)
			if !ok {
				panic(v)
			}
			code = int(c)
		}
	}()
	parser, err := kong.New(&cli{},
		kong.Name("load"), kong.Description("Load tests for streams.\n\n"+presetHelp()+"\n"+exitHelp),
		kong.Writers(e.stdout, e.stderr), kong.Exit(func(c int) { panic(exiting(c)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Resolvers(presetValues), kong.PostBuild(hideUnused))
	if err != nil {
		return e.fail(err)
	}
	ctx, err := parser.Parse(longFlags(e.args))
	if err != nil {
		fmt.Fprintf(e.stderr, "load: %v\nTry 'load --help'.\n", clearer(err))
		return exitUsage
	}
	return e.fail(ctx.Run(&e))
}

// clearer names the presets where one is missing, and drops proposals for a flag if none
// begins with its letter: with two letters changed a short name becomes any other.
func clearer(err error) error {
	text := err.Error()
	if text == `expected "<preset>"` {
		return errors.New("expected a preset: " + strings.Join(load.PresetNames(), ", "))
	}
	wrong, proposed, ok := strings.Cut(text, ", did you mean ")
	name, isFlag := strings.CutPrefix(wrong, "unknown flag --")
	if ok && isFlag && !strings.Contains(proposed, `"--`+name[:min(len(name), 1)]) {
		return errors.New(wrong)
	}
	return err
}

// fail prints err and returns its exit code.
func (e env) fail(err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(e.stderr, "load: %v\n", err)
	if x, ok := errors.AsType[*exitError](err); ok {
		return x.code
	}
	return exitFailed
}

// longFlags lets long flags begin with one dash too, as Go's do.
func longFlags(args []string) []string {
	out := make([]string, 0, len(args))
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "-"); ok && len(name) > 1 && name[0] >= 'a' && name[0] <= 'z' {
			a = "-" + a
		}
		out = append(out, a)
	}
	return out
}

func presetHelp() string {
	var b strings.Builder
	b.WriteString("Presets:\n")
	for _, p := range load.Presets() {
		fmt.Fprintf(&b, "  %-9s %s\n", p.Name, p.Help)
	}
	return b.String()
}
