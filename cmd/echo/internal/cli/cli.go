// Package cli runs a program of several commands: it finds the command, parses its flags,
// prints help and errors, and says what the exit code is.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// The exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130 // what a shell says of a program that Ctrl-C has ended
)

// ErrInterrupted is what a command returns that a signal has ended.
var ErrInterrupted = errors.New("interrupted")

// Std is a program's standard input and output.
type Std struct {
	In       io.Reader
	Out, Err io.Writer
}

// A Program is a name and commands.
type Program struct {
	Name, About string
	Commands    []Command
}

// A Command is one of a program's commands.
type Command struct {
	Name, About string
	Arg         string // what its argument is, if it takes one
	Flags       Flags
	Run         func(std Std) error // after Flags.Check
}

// Flags are the flags of a command.
type Flags interface {
	// Register has fs fill them in.
	Register(fs *flag.FlagSet)
	// Check takes the command's arguments, at most one, and says which flags can't stand
	// together.
	Check(args []string) error
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage makes err a mistake in the command line; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// Usagef is Usage of a new error.
func Usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Run runs the command that args begin with, and returns the exit code.
func (p *Program) Run(args []string, std Std) int {
	if len(args) == 0 {
		p.help(std.Err)
		return ExitUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		p.help(std.Out)
		return ExitOK
	}
	var names []string
	for i := range p.Commands {
		c := &p.Commands[i]
		if c.Name == args[0] {
			return p.exitCode(c, p.runCommand(c, args[1:], std), std.Err)
		}
		names = append(names, c.Name)
	}
	fmt.Fprintf(std.Err, "%s: no command %q; there are %s\n", p.Name, args[0], strings.Join(names, ", "))
	return ExitUsage
}

func (p *Program) help(w io.Writer) {
	fmt.Fprintf(w, "%s %s.\n\n", p.Name, p.About)
	for _, c := range p.Commands {
		fmt.Fprintf(w, "  %s %-12s %s\n", p.Name, strings.TrimSpace(c.Name+" "+c.Arg), c.About)
	}
	fmt.Fprintln(w, "\nEach has -h for its flags. A flag begins with one dash or two.")
}

func (p *Program) runCommand(c *Command, args []string, std Std) error {
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.Flags.Register(fs)
	most := 0
	if c.Arg != "" {
		most = 1
	}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(std.Out, "usage: %s %s\n%s.\n\n", p.Name, strings.TrimSpace(c.Name+" [flags] "+c.Arg), c.About)
		fs.SetOutput(std.Out)
		fs.PrintDefaults()
		return nil
	case err != nil:
		return Usage(err)
	case fs.NArg() > most:
		return Usagef("unexpected argument %q", fs.Arg(most))
	}
	if err := c.Flags.Check(fs.Args()); err != nil {
		return err
	}
	return c.Run(std)
}

// exitCode prints in one line what went wrong, and returns its exit code.
func (p *Program) exitCode(c *Command, err error, w io.Writer) int {
	var ue usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &ue):
		fmt.Fprintf(w, "%s %s: %s (see %s %s -h)\n", p.Name, c.Name, oneLine(err), p.Name, c.Name)
		return ExitUsage
	}
	fmt.Fprintf(w, "%s %s: %s\n", p.Name, c.Name, oneLine(err))
	if errors.Is(err, ErrInterrupted) {
		return ExitInterrupted
	}
	return ExitFailed
}

// oneLine is an error's text on one line, without the library's prefix. Joined errors
// have several lines.
func oneLine(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	return strings.ReplaceAll(text, "sluice: ", "")
}
