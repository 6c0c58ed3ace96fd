package cli

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
)

// flags take -n, and refuse an argument "bad".
type flags struct {
	n    int
	args []string
}

func (f *flags) Register(fs *flag.FlagSet) { fs.IntVar(&f.n, "n", 1, "how `MANY`") }

func (f *flags) Check(args []string) error {
	if f.args = args; len(args) > 0 && args[0] == "bad" {
		return Usagef("bad is bad")
	}
	return nil
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		args        string
		fails       error
		code        int
		out, errOut string
	}{
		{"", nil, ExitUsage, "", "prog one FILE"},
		{"--help", nil, ExitOK, "one dash or two", ""},
		{"help", nil, ExitOK, "prog two ", ""},
		{"three", nil, ExitUsage, "", "prog: no command \"three\"; there are one, two\n"},
		{"one", nil, ExitOK, "ran 1 []", ""},
		{"one -n 5 file", nil, ExitOK, "ran 5 [file]", ""},
		{"one --n=5 file", nil, ExitOK, "ran 5 [file]", ""},
		{"one -h", nil, ExitOK, "usage: prog one [flags] FILE\nabout one.", ""},
		{"two -help", nil, ExitOK, "usage: prog two [flags]\nabout two.", ""},
		{"one a b", nil, ExitUsage, "", "prog one: unexpected argument \"b\" (see prog one -h)\n"},
		{"two a", nil, ExitUsage, "", "unexpected argument \"a\""},
		{"one bad", nil, ExitUsage, "", "prog one: bad is bad (see prog one -h)\n"},
		{"one -n x", nil, ExitUsage, "", "invalid value"},
		{"two -m", nil, ExitUsage, "", "not defined: -m"},
		{"one", errors.New("sluice: it broke\nsluice: twice"), ExitFailed, "ran", "prog one: it broke; twice\n"},
		{"one", Usage(errors.New("no")), ExitUsage, "ran", "prog one: no (see"},
		{"one", fmt.Errorf("x: %w", ErrInterrupted), ExitInterrupted, "ran", "prog one: x: interrupted\n"},
	} {
		var out, errOut strings.Builder
		var one, two flags
		ran := func(f *flags) func(Std) error {
			return func(std Std) error {
				fmt.Fprintln(std.Out, "ran", f.n, f.args)
				return c.fails
			}
		}
		p := Program{Name: "prog", About: "is a program", Commands: []Command{
			{Name: "one", Arg: "FILE", About: "about one", Flags: &one, Run: ran(&one)},
			{Name: "two", About: "about two", Flags: &two, Run: ran(&two)},
		}}
		code := p.Run(strings.Fields(c.args), Std{Out: &out, Err: &errOut})
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errOut.String(), c.errOut) ||
			(c.out == "") != (out.Len() == 0) || (c.errOut == "") != (errOut.Len() == 0) {
			t.Errorf("%q, error %v: exit code %d, standard output %q, standard error %q", c.args, c.fails, code, out.String(), errOut.String())
		}
	}
	if Usage(nil) != nil {
		t.Error("no error became one")
	}
}
