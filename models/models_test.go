// Package models checks the credit rules in every order of events.
package models

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Ways in which a model checker's run ends.
const (
	holds    = "holds"
	deadlock = "invalid end state"
	violated = "assertion violated"
)

// variants of credit.pml: the rules as they are, in several sizes, and each of
// them broken. README.md has the same names.
var variants = []struct {
	name    string
	defines string
	want    string // how the run ends
	because string // part of the assertion that must be the one to fail
}{
	{"rules", "", holds, ""},
	{"windows of one", "-DW=1 -DCW=1 -DT=1 -DCT=1 -DN=1", holds, ""},
	{"message above both windows", "-DCW=2", holds, ""},
	{"one stream can fill the connection", "-DW=3 -DCW=3 -DN=1", holds, ""},
	{"grants of less than half a window", "-DW=4 -DT=1 -DCW=6 -DCT=1 -DM=4 -DN=1", holds, ""},
	{"receiver gives up", "-DCANCEL -DN=1", holds, ""},
	{"both give up", "-DCANCEL -DABORT -DN=1", holds, ""},
	{"receiver gives up, two messages", "-DCANCEL -DM=2 -DW=1 -DT=1 -DCW=2", holds, ""},
	{"sender gives up, two messages", "-DABORT -DM=2 -DW=1 -DT=1 -DCW=2", holds, ""},
	{"a grant is repeated", "-DREPLAY -DN=1", holds, ""},
	{"a grant is repeated, both give up", "-DCANCEL -DABORT -DREPLAY -DN=1 -DM=2", holds, ""},
	{"the rest of a message is granted at once", "-DAHEAD", holds, ""},
	{"the same, above both windows", "-DAHEAD -DCW=2", holds, ""},
	{"the same, both give up", "-DAHEAD -DCANCEL -DABORT -DN=1", holds, ""},

	{"whole message must fit, above the window", "-DSEND=WHOLE", deadlock, ""},
	{"whole message must fit, as large as the window", "-DSEND=WHOLE -DW=3 -DT=2", deadlock, ""},
	{"overdraw by one message", "-DSEND=OVERDRAW", violated, "got[s]<=granted[s]"},
	{"credit looked at, then taken", "-DSEND=RACY", violated, "got[2]<=granted[2]"},
	{"connection credit not looked at", "-DSEND=BLIND", violated, "got[2]<=granted[2]"},
	{"stream threshold above its window", "-DT=3", deadlock, ""},
	{"connection threshold above its window", "-DCT=5", deadlock, ""},
	{"connection credit tied to streams", "-DTIED -DW=4 -DT=2 -DCW=2", deadlock, ""},
	{"credit returns with whole messages", "-DASSEMBLY=TAKEN", deadlock, ""},
	{"the same, no message above the window", "-DASSEMBLY=TAKEN -DW=3", deadlock, ""},
	{"the same for connection credit only", "-DASSEMBLY=HALF", deadlock, ""},
	{"credit lent for any number of messages", "-DASSEMBLY=ALL", violated, "held[s]"},
	{"the latest total counts", "-DGRANT=LATEST -DREPLAY", violated, "limit[2]-sent[2]"},
	{"grants are increments", "-DGRANT=DELTA -DREPLAY", violated, "limit[place]-sent[place]"},
	{"rest not flushed", "-DFLUSH=NEVER", violated, "(limit[2]-sent[2])==4"},
	{"rest flushed when the last end arrives", "-DFLUSH=EOS", violated, "(limit[2]-sent[2])==4"},
	{"late data not returned", "-DCANCEL -DLOSE_LATE", violated, "(limit[2]-sent[2])==4"},
	{"untaken messages not returned", "-DCANCEL -DLOSE_MAILBOX", violated, "(limit[2]-sent[2])==4"},
	{"half a message not returned", "-DABORT -DLOSE_PARTIAL", violated, "(limit[2]-sent[2])==4"},
	{"half a message returned twice", "-DCANCEL -DTWICE_PARTIAL", violated, "(limit[2]-sent[2])<="},
	{"STOP not seen while waiting", "-DCANCEL -DIGNORE_STOP -DN=1", deadlock, ""},
	{"close reported before the last message", "-DEARLY_CLOSE", violated, "!(closed[s])"},
	{"close reported twice", "-DCANCEL -DCLOSE_TWICE", violated, "!(closed[s])"},
}

func TestCreditRules(t *testing.T) {
	requireTools(t, "spin", "gcc")
	model, err := os.ReadFile("credit.pml")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			out := check(t, model, strings.Fields(v.defines))
			verdict, line := judge(out)
			if verdict != v.want || !strings.Contains(line, v.because) {
				t.Errorf("%s: %q, want %q with %q\n%s", v.defines, line, v.want, v.because, out)
			}
			t.Logf("%s, %s states", verdict, states(out))
		})
	}
}

// requireTools skips the test where a tool is not installed, unless
// SLUICE_REQUIRE_SPIN says that they all must be.
func requireTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("SLUICE_REQUIRE_SPIN") != "" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed, so the models are not checked", tool)
	}
}

// check compiles one variant and lets it try everything.
func check(t *testing.T, model []byte, defines []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "credit.pml"), model, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	run("spin", append(defines, "-a", "credit.pml")...)
	run("gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c")
	return run("./pan", "-m1000000", "-w21")
}

var (
	verdictLine = regexp.MustCompile(`(?m)^pan:1: (invalid end state|assertion violated).*$`)
	complete    = regexp.MustCompile(`errors: 0\b`)
	stateCount  = regexp.MustCompile(`(\d+) states, stored`)
)

// judge tells how a run ended. One that ran out of depth, memory or time has
// proved nothing.
func judge(out string) (verdict, line string) {
	if m := verdictLine.FindStringSubmatch(out); m != nil {
		return m[1], m[0]
	}
	if complete.MatchString(out) && !strings.Contains(out, "Search not completed") &&
		!strings.Contains(out, "max search depth too small") {
		return holds, ""
	}
	return "not completed", ""
}

func states(out string) string {
	if m := stateCount.FindStringSubmatch(out); m != nil {
		return m[1]
	}
	return "no"
}

func TestAnUnfinishedSearchProvesNothing(t *testing.T) {
	for out, want := range map[string]string{
		"State-vector 9 byte, errors: 0":                                     holds,
		"error: max search depth too small\nerrors: 0":                       "not completed",
		"Warning: Search not completed\nerrors: 0":                           "not completed",
		"pan:1: invalid end state (at depth 3)\nSearch not completed":        deadlock,
		"pan:1: assertion violated (got[s]<=granted[s]) (at depth 54)\nerr.": violated,
		"pan: out of memory":                                                 "not completed",
	} {
		if got, _ := judge(out); got != want {
			t.Errorf("%q: %s, want %s", out, got, want)
		}
	}
}
