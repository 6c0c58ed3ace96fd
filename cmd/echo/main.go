// Command echo is a tour of the library: an echo server, a client for it, and a
// demonstration of both in one process.
//
//	echo demo [FILE]       # server and client over TCP, every byte checked
//	echo serve             # the server alone
//	echo call              # each line of standard input is a message
//
// Read the files in this order: handler.go is the server's part of an echo,
// written in both styles; serve.go is the life of a server; call.go that of a
// client; transfer.go sends and checks a stream of messages; demo.go puts all of
// it together.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// stdio is what a command talks to.
type stdio struct {
	in       *os.File
	out, err io.Writer
}

type command struct {
	name, args, about string
	run               func(c *command, args []string, std stdio) error
}

func commands() []command {
	return []command{
		{"demo", "[FILE]", "send FILE, or made-up bytes, through a server in this process and check what comes back", demo},
		{"serve", "", "serve streams until interrupted", serve},
		{"call", "", "send messages to a server: lines of standard input, a file, or made-up load", call},
	}
}

func main() {
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

func run(args []string, std stdio) int {
	if len(args) == 0 {
		usage(std.err)
		return exitUsage
	}
	if args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help" {
		usage(std.out)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return exitCode(c.name, c.run(&c, args[1:], std), std.err)
		}
	}
	fmt.Fprintf(std.err, "echo: no command %q; there are demo, serve and call\n", args[0])
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "echo sends messages there and back.")
	fmt.Fprintln(w)
	for _, c := range commands() {
		fmt.Fprintf(w, "  echo %-12s %s\n", c.name+" "+c.args, c.about)
	}
	fmt.Fprintln(w, "\nEach has -h for its flags.")
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode says in one line what went wrong, and turns it into the exit code.
func exitCode(name string, err error, w io.Writer) int {
	var ue usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &ue):
		fmt.Fprintf(w, "echo %s: %s (see echo %s -h)\n", name, oneLine(err), name)
		return exitUsage
	}
	fmt.Fprintf(w, "echo %s: %s\n", name, oneLine(err))
	return exitFailed
}

// oneLine is an error's text without what everybody knows. Errors that were
// joined come on several lines.
func oneLine(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	return strings.ReplaceAll(text, "sluice: ", "")
}

// parse reads a command's flags and returns its other arguments, most at most.
func (c *command) parse(fs *flag.FlagSet, args []string, most int, std stdio) ([]string, error) {
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(std.out, "usage: echo %s [flags] %s\n%s.\n\n", c.name, c.args, c.about)
		fs.SetOutput(std.out)
		fs.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, usageError{err}
	case fs.NArg() > most:
		return nil, usagef("unexpected argument %q", fs.Arg(most))
	}
	return fs.Args(), nil
}
