package docs

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"math"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

const operationsPage = "docs/operations.md"

// count writes a number as the page does.
func count(n int) string {
	if n == kernel.Unlimited {
		return "Unlimited"
	}
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes bytes as the page does.
func size(n int) string {
	for _, u := range []struct {
		name  string
		shift int
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<u.shift && n != kernel.Unlimited {
			return strconv.FormatFloat(float64(n)/float64(int(1)<<u.shift), 'f', -1, 64) + " " + u.name
		}
	}
	return count(n)
}

// duration writes a time as the page does.
func duration(d time.Duration) string {
	if d >= 1<<60 {
		return "Unlimited"
	}
	if d >= time.Minute {
		return strconv.FormatFloat(d.Minutes(), 'f', -1, 64) + " min"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}

// The page has every limit, with its default.
func TestOperationsHasTheLimits(t *testing.T) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64)) // the default of Memory depends on it
	}
	limits := conn.WithDefaults(conn.Limits{})
	// The protocol may have another default of these.
	limits.KeepaliveInterval = time.Duration(constants(t, "conn/health.go")["defaultKeepalive"])
	limits.IdleConn = time.Duration(constants(t, "conn/lifetime.go")["defaultIdleConn"])
	page := map[string]string{}
	for _, row := range tables(t, readPage(t, operationsPage), "limits") {
		page[spans(row[0])[0]] = row[1]
	}
	v := reflect.ValueOf(limits)
	for i := range v.NumField() {
		name, want := v.Type().Field(i).Name, ""
		switch x := v.Field(i).Interface().(type) {
		case time.Duration:
			want = duration(x)
		case int:
			want = count(x)
			if bytes := strings.HasSuffix(name, "Window") || x >= 1<<14 && name != "MaxConns" && name != "MaxTotalStreams"; bytes {
				want = size(x)
			}
		}
		if page[name] != want {
			t.Errorf("%s is %q, on the page %q", name, want, page[name])
		}
		delete(page, name)
	}
	for name := range page {
		t.Errorf("there is no limit %s", name)
	}
}

// standard imports what constants are made of.
type standard struct{ types.Importer }

func (s standard) Import(path string) (*types.Package, error) {
	if path != "time" && path != "math" {
		return nil, fmt.Errorf("%s is not needed", path)
	}
	return s.Importer.Import(path)
}

// constants evaluates the constants of a file of ours.
func constants(t *testing.T, name string) map[string]int {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	// What the file uses of others is not there, which constants don't mind.
	config := types.Config{Importer: standard{importer.ForCompiler(fset, "source", nil)}, IgnoreFuncBodies: true, Error: func(error) {}}
	pkg, _ := config.Check(name, fset, []*ast.File{f}, nil)
	found := map[string]int{}
	for _, id := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(id).(*types.Const); ok && c.Val().Kind() == constant.Int {
			n, _ := constant.Int64Val(c.Val())
			found[id] = int(n)
		}
	}
	return found
}

// The sentences of the page that have numbers of the code have those of the code.
func TestOperationsHasTheNumbers(t *testing.T) {
	page := strings.Join(strings.Fields(readPage(t, operationsPage)), " ")
	a, r := constants(t, "conn/abuse.go"), constants(t, "frame/native/reader.go")
	e, s := constants(t, "kernel/endpoint.go"), constants(t, "kernel/system_unix.go")
	b, m, k, crowd := constants(t, "kernel/budget.go"), constants(t, "conn/memory.go"), constants(t, "kernel/memory.go"), constants(t, "kernel/crowd.go")
	l := conn.WithDefaults(conn.Limits{})
	n := constants(t, "conn/schedule.go")
	limit := func(what string, format string, args ...any) string {
		return "| " + what + " | " + fmt.Sprintf(format, args...)
	}
	worst := 2*l.ConnWindow + 2*l.AssemblyBudget + l.OutQueue
	lowered := 2*(1<<20) + 2*(1<<20) + 256<<10
	memory, small := 21*(1<<30)/10, 7*384*(1<<20)/10
	for _, want := range []string{
		limit("pings on a connection that carries nothing else", "%s at once and %d a second after that", count(a["pingBurst"]), a["pingRate"]),
		limit("grants of credit", "%s, and %d for each message of no bytes", count(a["creditSpare"]), a["grantsEach"]),
		limit("reports of bytes read", "%s, and one for each %s that we write", count(a["readSpare"]), size(a["leastRead"])),
		limit("frames that change nothing", "%s, and %d for each stream opened", count(a["uselessSpare"]), a["uselessEach"]),
		limit("answers (PONG, REJECT) that the peer does not read", "%s, where it has read nothing for %s; %s in all. Each counts %d bytes",
			count(n["unreadAnswers"]), duration(time.Duration(n["unreadFor"])), count(n["mostAnswers"]), n["answerSize"]),
		limit("GOAWAY", "%d |", a["maxGoAways"]),
		limit("changes of settings", "%d at once and %d a second after that", a["settingsBurst"], a["settingsRate"]),
		limit(fmt.Sprintf("fragments of less than %d bytes in a row", r["tinyFragment"]), "%s; empty ones %d", count(r["maxTinyFrames"]), r["maxEmpty"]),
		limit("frames of unknown types in a row", "%d |", r["maxSkipped"]),

		fmt.Sprintf("| %d %%, after that | no more connections", e["stopAccepting"]),
		fmt.Sprintf("| %d %% | where it lasts for %s", e["stopWaiting"], duration(time.Duration(b["patience"]))),
		fmt.Sprintf("| %d %% | opens are refused", e["stopOpening"]),
		fmt.Sprintf("| %d %% | what holds the most is evicted at once", e["stopHolding"]),
		fmt.Sprintf("what the network brings in %d ms, and %d %% of Memory", time.Duration(b["leastLook"]).Milliseconds(), 100/b["growthLooks"]),
		fmt.Sprintf("an event loop reads | %s", count(m["ConnSize"])),
		fmt.Sprintf("your own), more | %s | | what that reads", count(m["ReaderSize"])),
		fmt.Sprintf("nor TLS, more | %s | | TLS, more | %s", count(m["BufferSize"]), count(m["TLSSize"])),
		fmt.Sprintf("in its handshake | %s", count(k["handshakeSize"])),
		fmt.Sprintf("| an open stream | %s", count(m["StreamSize"])),
		fmt.Sprintf("| a handler, waiting or running | %s", count(m["HandlerSize"])),
		fmt.Sprintf("beside its bytes | %d", constants(t, "actor/held.go")["messageSize"]),
		fmt.Sprintf("waits for its handler | %s", count(k["waitingSize"])),
		fmt.Sprintf("a stack of %s. Where there are %s", size(k["leastStack"]), count(k["manyHandlers"])),
		fmt.Sprintf("up to %s. What a handler", size(k["mostStack"])),
		fmt.Sprintf("the lower of %s and Memory / 2 / %s", count(l.MaxTotalStreams), count(m["StreamSize"]+m["HandlerSize"])),
		fmt.Sprintf("`MaxTotalStreams` %s", count(conn.WithDefaults(conn.Limits{Memory: (128 << 20) / 100 * 70}).MaxTotalStreams)),
		fmt.Sprintf("at most %d streams is refused", crowd["fewStreams"]),
		fmt.Sprintf("while %d for each processor are ready to run", constants(t, "kernel/starts.go")["readyEach"]),
		fmt.Sprintf("those with at most %d handlers first", crowd["fewStreams"]),
		fmt.Sprintf("lose their newest streams, at most %d together", crowd["crowdMost"]),
		fmt.Sprintf("| %d %% | handlers that have not begun wait", e["stopStarting"]),
		fmt.Sprintf("for handlers until %d %% are in use", e["stopWaiting"]),
		fmt.Sprintf("of %s streams at each look", count(b["mostCompacted"])),
		fmt.Sprintf("more than %d %% of GOMEMLIMIT", k["fillingShare"]),
		fmt.Sprintf("at most %d %% of `RLIMIT_NOFILE`, your own number at most %d %%", s["defaultShare"], s["namedShare"]),
		fmt.Sprintf("the lower of %s and 0.%d x RLIMIT_NOFILE", count(l.MaxConns), s["defaultShare"]),
		fmt.Sprintf("the lower of yours and 0.%d x RLIMIT_NOFILE", s["namedShare"]),
		fmt.Sprintf("RLIMIT_NOFILE = MaxConns / 0.%d", s["namedShare"]),
		fmt.Sprintf("%d %% of GOMEMLIMIT", constants(t, "conn/options.go")["MemoryShare"]),
		fmt.Sprintf("Memory = 0.%d x GOMEMLIMIT", constants(t, "conn/options.go")["MemoryShare"]/10),
		fmt.Sprintf("not read for %s", duration(time.Duration(constants(t, "conn/memory.go")["stallTime"])))[len("not read for "):],

		fmt.Sprintf("at least 128 bytes and at most 64 KiB: %s bytes by default", count(conn.InitialCredit(&l))),
		fmt.Sprintf("sum %s ```", size(worst)),
		fmt.Sprintf("`OutQueue` 256 KiB it is %s", size(lowered)),
		fmt.Sprintf("%d fit with the defaults, and %d with the lowered limits", memory/worst, memory/lowered),
		fmt.Sprintf("GOMEMLIMIT=384MiB. `Memory` is %.0f MiB, and the other %.0f MiB", 0.7*384, 0.3*384),
		fmt.Sprintf("worst %d connection fits with the defaults, and %d with the lowered", small/worst, small/lowered),
		fmt.Sprintf("5,000 connections with a stream and a handler each take %.1f MB", 5000*(10_500+6_400)/1e6),
		fmt.Sprintf("Connections times %s", size(worst)),
		fmt.Sprintf("within KeepaliveInterval + KeepaliveTimeout %s", duration(30*time.Second+l.KeepaliveTimeout)),
		fmt.Sprintf("within WriteStall and a quarter of it %s", duration(l.WriteStall+l.WriteStall/4)),
		fmt.Sprintf("within ReadStall and a quarter of WriteStall %s", duration(l.ReadStall+l.WriteStall/4)),
		fmt.Sprintf("else Limits.Drain %s", duration(l.Drain)),
		fmt.Sprintf("200 MB/s over 100 ms take a window of %.0f MB, which is below the ceiling of %s", 1.15*200/10, size(l.MaxWindow)),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("not on the page: %s", want)
		}
	}
	// Of the pauses of clients the page has the defaults.
	for _, line := range []string{"orDefault(b.First, time.Second)", "orDefault(b.Most, 120*time.Second)", "orDefault(b.Factor, 1.6)", "orDefault(b.Jitter, 0.2)"} {
		if !strings.Contains(readPage(t, "kernel/options.go"), line) {
			t.Errorf("not in kernel/options.go any more, see the page: %s", line)
		}
	}
	for _, row := range tables(t, readPage(t, operationsPage), "descriptors") {
		n, err := strconv.Atoi(strings.ReplaceAll(row[0], ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		if row[1] != count(min(l.MaxConns, n*s["defaultShare"]/100)) || row[2] != count(n*s["namedShare"]/100) {
			t.Errorf("%v", row)
		}
	}
}

// The page's table of paths is what a simulated network gives. Which stream gets how much of
// the connection's window depends on the order of events.
func TestRatesOfPaths(t *testing.T) {
	if testkit.RaceEnabled {
		t.Skip("the race detector takes a minute for it, and finds what other tests show it")
	}
	mib := func(cell string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(cell, " MiB"))
		if err != nil {
			t.Fatal(err)
		}
		return n << 20
	}
	for _, row := range tables(t, readPage(t, operationsPage), "paths") {
		streams, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		var low, high float64
		if _, err := fmt.Sscanf(row[3], "%f to %f", &low, &high); err != nil || high > 2*low {
			t.Fatalf("%q: %v", row[3], err)
		}
		limits := kernel.Limits{StreamWindow: mib(row[1]), MaxWindow: mib(row[2])}
		least := low
		if streams == 1 { // a window but an eighth in a round trip
			least = max(low, 0.85*float64(limits.MaxWindow)/0.1/1e6)
		}
		got := 0.0
		for range 12 { // an order of events can be a bad one, and on a busy machine many are
			if got = rateOver(t, 100*time.Millisecond, streams, limits) / 1e6; got >= least && got <= high {
				break
			}
		}
		t.Logf("%s: %.1f MB/s", strings.Join(row[:3], ", "), got)
		if got < least || got > high {
			t.Errorf("%s: %.1f MB/s, on the page %s", strings.Join(row[:3], ", "), got, row[3])
		}
	}
}
