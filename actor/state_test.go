package actor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what came out to testdata, to be looked at as a difference")

// golden compares got with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			old := ""
			if i < len(w) {
				old = w[i]
			}
			t.Fatalf("%s:%d: got\n%s\nwant\n%s\n(go test ./actor -rewrite writes it anew)", path, i+1, g[i], old)
		}
	}
	t.Fatalf("%s: the end is missing", path)
}

// An event is one step of the state machine.
type event struct {
	name string
	do   func(st *state) (effect, bool) // false: the peer broke a rule
}

func step1(f func(st *state) effect) func(st *state) (effect, bool) {
	return func(st *state) (effect, bool) { return f(st), true }
}

var events = []event{
	{"closeSend", step1((*state).closeSend)},
	{"endWritten", step1((*state).endWritten)},
	{"peerStopped", step1((*state).peerStopped)},
	{"closeReceive", step1((*state).closeReceive)},
	{"peerEnded", (*state).peerEnded},
	{"endSeen", step1((*state).endSeen)},
	{"handEnd", step1((*state).handEnd)},
	{"endedSent", step1(func(st *state) effect {
		if st.peerEnd == endUnseen {
			return 0
		}
		st.sentEnded = true
		return st.checkDone()
	})},
	{"peerSawEnd", step1((*state).peerSawEnd)},
	{"abort", step1(func(st *state) effect { return st.abort(true) })},
	{"resetWritten", step1(func(st *state) effect {
		if !st.resetOut {
			return 0
		}
		return st.resetWritten()
	})},
	{"lost", step1((*state).lost)},
}

func (s sendState) String() string { return [...]string{"open", "ending", "ended", "dead"}[s] }
func (r recvState) String() string {
	return [...]string{"open", "ended", "stopped", "stopEnd", "dead"}[r]
}

func (e effect) String() string {
	names := []string{"sendOver", "recvOver", "dropOut", "dropIn", "writeStop", "writeReset", "writeEnd", "done", "retire"}
	var set []string
	for i, n := range names {
		if e&(1<<i) != 0 {
			set = append(set, n)
		}
	}
	if len(set) == 0 {
		return "-"
	}
	return strings.Join(set, "+")
}

func (st state) String() string {
	s := st.send.String() + "/" + st.recv.String()
	for _, f := range []struct {
		on   bool
		name string
	}{
		{st.peerEnd == endSeen, "sawEnd"}, {st.peerEnd == endHanded, "handed"}, {st.sentEnded, "sentEnded"}, {st.gotEnded, "gotEnded"},
		{st.resetOut, "resetOut"}, {st.done, "done"}, {st.retired, "retired"},
	} {
		if f.on {
			s += " " + f.name
		}
	}
	return s
}

// reachable returns every state that any order of events leads to, in the order
// in which they are found.
func reachable() []state {
	seen := map[state]bool{{}: true}
	all := []state{{}}
	for i := 0; i < len(all); i++ {
		for _, e := range events {
			st := all[i]
			e.do(&st)
			if !seen[st] {
				seen[st] = true
				all = append(all, st)
			}
		}
	}
	return all
}

// Every event in every state: what it asks for and where it leads. The table is
// the state machine's documentation; a change of it is a change of behaviour.
func TestEveryEventInEveryState(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Send half/receive half and what else is known; then each event that changes\n")
	b.WriteString("# something: its effects and the state that follows. Made by go test ./actor -rewrite.\n")
	for _, from := range reachable() {
		fmt.Fprintf(&b, "\n%v\n", from)
		for _, e := range events {
			st := from
			fx, ok := e.do(&st)
			switch {
			case !ok:
				fmt.Fprintf(&b, "\t%-14s the peer broke a rule\n", e.name)
			case st != from || fx != 0:
				fmt.Fprintf(&b, "\t%-14s %v -> %v\n", e.name, fx, st)
			}
		}
	}
	golden(t, "states.golden", b.String())
}

func TestDoneAndRetireAreToldExactlyOnce(t *testing.T) {
	for _, from := range reachable() {
		for _, e := range events {
			st := from
			fx, _ := e.do(&st)
			if (fx&fxDone != 0) != (!from.done && st.done) {
				t.Errorf("%s in %v: done told %v, became %v", e.name, from, fx&fxDone != 0, st)
			}
			if (fx&fxRetire != 0) != (!from.retired && st.retired) {
				t.Errorf("%s in %v: retire told %v, became %v", e.name, from, fx&fxRetire != 0, st)
			}
			if from.done && !st.done || from.retired && !st.retired {
				t.Errorf("%s brings %v back to life as %v", e.name, from, st)
			}
			if st.retired && !st.done {
				t.Errorf("%s in %v: forgotten before its end: %v", e.name, from, st)
			}
		}
	}
}

func TestHalvesOnlyMoveForward(t *testing.T) {
	for _, from := range reachable() {
		for _, e := range events {
			st := from
			fx, _ := e.do(&st)
			if st.send < from.send || st.recv < from.recv {
				t.Errorf("%s takes %v back to %v", e.name, from, st)
			}
			if from.send == sendOpen && st.send != sendOpen && fx&fxSendOver == 0 {
				t.Errorf("%s in %v ends the sending half and tells nobody", e.name, from)
			}
			if from.recv == recvOpen && st.recv != recvOpen && fx&fxRecvOver == 0 {
				t.Errorf("%s in %v ends the receiving half and tells nobody", e.name, from)
			}
		}
	}
}

// Whatever has happened, closing both halves and doing what is asked leads to
// the end: no state is a dead end.
func TestClosingLeadsToTheEndFromEveryState(t *testing.T) {
	for _, from := range reachable() {
		st := from
		for _, e := range []string{"closeSend", "closeReceive", "resetWritten", "endWritten", "peerEnded", "endSeen", "endedSent", "peerSawEnd"} {
			for _, x := range events {
				if x.name == e {
					x.do(&st)
				}
			}
		}
		if !st.done || !st.retired {
			t.Errorf("closed in %v it stays at %v", from, st)
		}
	}
}
