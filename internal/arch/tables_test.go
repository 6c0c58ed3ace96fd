// Package arch holds the tests of the repository's own rules: who imports
// whom, what is documented, how large things are, what is forbidden, and who
// ends each goroutine. The tables in this file are what one edits.
package arch

// Ratchets. They may be tightened at any time.
const (
	maxFunctionP50   = 10  // lines
	maxFunctionP90   = 30  // lines
	maxFunction      = 80  // lines
	maxFile          = 600 // lines, tests excepted
	minTestShare     = 50  // lines of tests per 100 lines of production code
	minForPercentile = 20  // functions; fewer say nothing about a median
	maxBackward      = 20  // percent of a package's arrows; see backward
)

// packageLines names the packages whose files, tests excepted, have a number of lines at
// most, all together.
var packageLines = map[string]int{
	"cmd/echo": 745, // the tour: it is read in one sitting
}

// backward names the packages whose files read from the top down. File A has an
// arrow to file B if it uses a name that B defines. In the best order of the
// files this many percent of the arrows may run back. A limit above maxBackward
// only goes down; a package that does not exist is not looked at.
var backward = map[string]float64{
	"actor":  20,
	"conn":   20,
	"kernel": 20,
	"rpc":    20,
}

// exports names the packages whose exported names are counted, fields excepted,
// and how many there may be. A number goes up with a reason alone.
var exports = map[string]int{
	"kernel": 177, // the last three are SendCopy, ReceiveBatch, and for programs with several Observers
	"rpc":    57,  // the last one is for generated code
}

// imports names, for each package, those of ours that it may import. A package
// that is not here may not exist; frame/* other than native are protocols and
// follow protocolImports, internal/* import nothing of ours.
var imports = map[string][]string{
	"pool":              {},
	"metadata":          {},
	"status":            {"metadata", "internal/errtext"},
	"frame":             {"metadata", "pool", "status", "internal/errtext"},
	"frame/native":      {"frame", "metadata", "pool", "status", "internal/compress", "internal/errtext"},
	"internal/compress": {"pool"},
	"actor":             {"frame", "metadata", "pool", "status", "internal/errtext", "internal/timers"},
	"conn":              {"frame", "metadata", "pool", "status", "internal/errtext", "internal/timers"},
	"kernel":            {"actor", "conn", "frame", "frame/native", "metadata", "pool", "status", "internal/errtext", "internal/timers"},
	"kernel/kerneltest": {"conn", "frame", "kernel", "metadata", "pool", "status", "internal/leak"},
	"rpc":               {"kernel", "metadata", "pool", "rpc/codec", "status", "internal/errtext"},
	"rpc/codec":         {"kernel", "metadata", "pool", "status", "internal/errtext", "internal/layout"},
	"rpc/protocodec":    {"rpc/codec"},
	"fleet":             {"frame", "kernel", "metadata", "pool", "status", "internal/errtext"},
	"retry":             {"frame", "kernel", "metadata", "pool", "status"},
	"internal/tally":    {"conn", "kernel", "status"}, // for modules in contrib
	"cmd/echo": {"actor", "kernel", "pool", "status", echo + "advice", echo + "cli", echo + "data", echo + "figures", echo + "flags", echo + "group", echo + "handover", echo + "notify", echo + "pages",
		echo + "lines", echo + "progress", echo + "units", echo + "wire"},
	"admin":                    {"conn", "fleet", "frame", "kernel", "status", "internal/errtext"},
	"cmd/protoc-gen-go-sluice": {},

	echo + "advice":      {"kernel", "status", echo + "cli"},
	echo + "cli":         {},
	echo + "credentials": {echo + "cli"},
	echo + "data":        {},
	echo + "figures":     {echo + "units"},
	echo + "flags":       {"pool", echo + "advice", echo + "cli", echo + "credentials", echo + "data", echo + "pages", echo + "units", echo + "wire"},
	echo + "group":       {},
	echo + "handover":    {},
	echo + "lines":       {},
	echo + "pages":       {"admin", "kernel"},
	echo + "notify":      {},
	echo + "progress":    {echo + "units"},
	echo + "units":       {},
	echo + "wire":        {"frame", "kernel", "pool", "rpc", "frame/native", "frame/strm", "frame/seastar", "frame/triple", echo + "cli"},
}

// generator is where the packages are that the generator's tests generate.
const generator = "cmd/protoc-gen-go-sluice/internal/"

// echo is where what cmd/echo needs besides the library is.
const echo = "cmd/echo/internal/"

var protocolImports = []string{"frame", "metadata", "pool", "status", "internal/compress", "internal/errtext"}

// testImports is what every package's tests may import besides.
var testImports = []string{"frame/native", "frame/strm", "frame/seastar", "frame/triple", "kernel/kerneltest", "internal/leak", "internal/testkit", "internal/testkit/capwire"}

// testImportsOf is what the tests of one package may import besides that.
var testImportsOf = map[string][]string{
	"admin":                    {"pool"},
	"actor":                    {"kernel"},
	"cmd/protoc-gen-go-sluice": {"frame", "kernel", "rpc", "rpc/codec", "status", generator + "editionpb", generator + "namespb", generator + "shapespb"},
	"frame":                    {"kernel"},
	"pool":                     {"kernel"},
	"rpc":                      {"actor", "frame", "rpc/protocodec"},
	"rpc/protocodec":           {"kernel", "rpc", "status"},
	"status":                   {"kernel", "pool"},
	"internal/tally":           {"pool"},
	"fleet":                    {"rpc"},
	"retry":                    {"frame", "rpc"},
}

// helpers are the packages that are there for tests only, with what they may import
// besides.
var helpers = map[string][]string{
	"docs/guide":        {"actor", "admin", "fleet", "frame", "kernel", "metadata", "pool", "retry", "rpc", "rpc/codec", "rpc/protocodec", "status"},
	"internal/attacks":  {"frame", "kernel", "pool", "status"},
	"internal/docs":     {"actor", "conn", "frame", "kernel", "metadata", "pool", "rpc", "rpc/codec", "status"},
	"internal/interop":  {"actor", "conn", "frame", "kernel", "metadata", "pool", "rpc", "rpc/codec", "status"},
	"internal/programs": {"frame", "kernel", "metadata", "pool", "rpc", "status"},
	"internal/leak":     {},

	"internal/reliability": {"frame", "kernel", "pool", "status"},
	"internal/testkit":     {"kernel", "metadata", "pool", "status"},

	"internal/testkit/capwire": {"frame", "metadata", "pool", "status"},
}

// external names the modules of others and the packages that may import them.
// An empty list allows all.
var external = map[string][]string{
	"github.com/panjf2000/gnet/v2":      {"conn"},
	"github.com/valyala/bytebufferpool": {"pool"},
	"golang.org/x/sys":                  {"conn"},
	"golang.org/x/net":                  {"frame/triple"},
	"go.uber.org/goleak":                {"kernel/kerneltest"},
	"golang.org/x/time":                 {},
	"google.golang.org/protobuf":        {},
	"github.com/klauspost/compress":     {},
	"github.com/pierrec/lz4/v4":         {},
}

// testExternal is what tests may import besides; internal/leak is a part of
// the tests, and checks its list of gnet's goroutines.
var testExternal = map[string][]string{
	"go.uber.org/goleak":           {},
	"pgregory.net/rapid":           {},
	"golang.org/x/net":             {"internal/interop"},
	"github.com/panjf2000/gnet/v2": {"conn", "internal/leak"},
}

// mutable names the package variables that may change, each with its reason.
var mutable = map[string]string{
	"rpc/codec.protobuf": "the encoding that Default uses for protobuf, set by protocodec as the program starts",
	"kernel.connIDs":     "numbers the process's connections",
	"status.appNames":    "the names of codes, which programs give",
	"pool.outstanding":   "counts the buffers that are out, in builds that look for leaks",
	"admin.static":       "the files of the pages, which go:embed sets",
}

// panics names the functions that may panic, each with its reason. A peer must
// not be able to reach any of them.
var panics = map[string]string{
	"status.NameCode":       "a mistake of the caller's: a code that is not its own",
	"kernel.mustBeGiven":    "a mistake of the caller's, like net/http's nil handler",
	"kernel.mustBeFree":     "a mistake of the caller's, like net/http's second handler for a pattern",
	"pool.Message.Truncate": "a mistake of the caller's, like a slice out of range",
	"pool.checkLen":         "a mistake of the caller's, like make with a negative length",
	"rpc.mustBeGiven":       "a mistake of the caller's, like net/http's nil handler",
	"pool.MustLive":         "a mistake of the caller's: a message that it has released or handed over",
	"pool.doubleRelease":    "only in builds that look for it",
}

// A spawn is a place in production code where something begins to run by
// itself: a go statement, a WaitGroup's Go, or an AfterFunc.
type spawn struct {
	file, function, kind string
	owner                string // who holds it
	end                  string // what makes it end, and who waits for that
}

// spawns lists all of them. A test fails for one that is missing, and prints
// the line to add; two in one function are two lines.
var spawns = []spawn{
	{"cmd/echo/demo.go", "demo", "go", "demo", "the server's Close; demo waits for it"},
	{"cmd/echo/demo.go", "(*transfer).demonstrate", "Go", "the group", "the end of the transfer, or the group's context; Wait waits for it"},
	{"cmd/echo/demo.go", "(*transfer).demonstrate", "Go", "the group", "its streams' ends, or the group's context; Wait waits for it"},
	{"cmd/echo/serve.go", "begin", "go", "serve", "Shutdown, or a listener that fails; the process ends after it"},
	{"cmd/echo/serve.go", "drain", "go", "drain", "the end of Shutdown and of the servers before, which is bounded; drain waits for it unless a second signal ends the process"},
	{"cmd/echo/serve.go", "serve", "Go", "serve", "the end of Shutdown, which is bounded; drain waits for it unless a second signal ends the process"},
	{"cmd/echo/transfer.go", "(*transfer).run", "Go", "the group", "its stream's end, or the group's context; Wait waits for it"},
	{"cmd/echo/transfer.go", "(*transfer).run", "Go", "the group", "its stream's end, or the group's context; Wait waits for it"},
	{"cmd/echo/internal/group/group.go", "(*Group).Go", "Go", "the group", "the function's return; Wait waits for it"},
	{"cmd/echo/internal/lines/lines.go", "Read", "go", "the reader", "the input's end; a read of standard input can't be interrupted, so the process may end first"},
	{"cmd/echo/internal/pages/pages.go", "(*Pages).Serve", "Go", "the program", "the stop that is returned, which waits for it"},
	{"cmd/echo/internal/progress/progress.go", "Start", "Go", "the bar", "its Stop, which waits for it"},
	{"cmd/echo/internal/wire/serve.go", "Register", "Go", "the call that passed the stream", "its stream's end; the handler's goroutine waits for it"},
	{"cmd/echo/internal/wire/serve.go", "answerStreams", "Go", "the handler", "its stream's end; the handler waits for it"},
	{"admin/actions.go", "(*Handler).drain", "go", "the server that is drained", "the end of Shutdown, after Limits.Drain at the latest; nobody waits for it"},
	{"admin/listen.go", "(*Handler).Serve", "go", "Serve", "the listener's failure, or the end of Serve's context; Serve waits for it"},
	{"admin/watch.go", "(*watch).join", "go", "those who watch pages", "the last of them leaving; the look under way is finished"},
	{"actor/out.go", "(*Stream).Out", "go", "the stream", "the end of its sending half"},
	{"actor/feed.go", "(*Stream).startPump", "go", "the stream", "an empty mailbox, or this side reading no more, or closing the connection"},
	{"conn/engine_linux.go", "(*loopConn).spawn", "go", "the connection's flush", "nothing to write, a full socket, or the connection's end"},
	{"conn/engine_linux.go", "(*loopConn).writable", "go", "the connection's flush", "nothing to write, a full socket, or the connection's end"},
	{"conn/foreign.go", "(*Conn).aside", "go", "who calls a session of the program's", "its return, for which the caller waits"},
	{"conn/foreign.go", "(*Conn).closeSession", "go", "the program's session", "the return of its Closed; nobody waits for it"},
	{"conn/guard.go", "(*guarded).Close", "go", "the program's net.Conn", "the return of its Close; nobody waits longer than 100 ms"},
	{"conn/netconn.go", "Serve", "go", "the connection's reader", "the net.Conn's end"},
	{"conn/netconn.go", "(*netConn).spawn", "go", "the connection's flush", "nothing to write, or the connection's end"},
	{"conn/pacing.go", "(*Conn).holdEnd", "time.AfterFunc", "the connection's reader", "it wakes the reader, once; stopped when that no longer waits"},
	{"conn/pipe.go", "(*half).setDeadline", "time.AfterFunc", "the pipe's half", "it wakes who waits, once; closing or another deadline stops it"},
	{"conn/watcher_linux.go", "newWatcher", "go", "the engine", "its close, which waits for it"},
	{"fleet/client.go", "NewClient", "go", "the client", "Close, which waits for it"},
	{"fleet/client.go", "(*Client).start", "go", "the client", "the end of a dial, which Close ends and waits for"},
	{"fleet/client.go", "(*Client).Close", "Go", "Close", "the end of an endpoint's client; Close waits for it"},
	{"fleet/watch.go", "aside", "go", "the program's function", "its return; nobody waits for one that ignores its context"},
	{"fleet/watch.go", "(*Client).reap", "go", "the client", "the end of a removed endpoint's client; Close waits for it"},
	{"fleet/dns.go", "dns", "go", "who has asked for it", "the end of its context, or of a lookup that is under way"},
	{"fleet/file.go", "File", "go", "who has asked for it", "the end of its context"},
	{"internal/timers/timers.go", "(*Queue).arm", "time.AfterFunc", "the queue", "it runs what is due, and returns"},
	{"kernel/admit.go", "(*Server).admit", "go", "the server", "the handshake's end, which is bounded"},
	{"kernel/context.go", "(*soundContext).watch", "context.AfterFunc", "who watches the context: a stream, Serve", "it ends what was watched, once; stopped when that is over"},
	{"kernel/context.go", "(*soundContext).watch", "go", "who stops watching a context of the program's", "the return of that context's methods; nobody waits for it"},
	{"kernel/core.go", "(*core).parentEnded", "go", "the stream", "it aborts the stream, once"},
	{"kernel/guard.go", "within", "go", "the program's function", "its return; nobody waits for one that ignores its context"},
	{"kernel/log.go", "(*logs).push", "go", "the server or client", "no record waits for the program's slog.Handler"},
	{"kernel/log.go", "(*logs).run", "go", "the server or client", "the same, after the handler has ended the goroutine"},
	{"kernel/dial.go", "(*Client).shake", "context.AfterFunc", "who dials", "it closes a socket, once; stopped when the handshake is done"},
	{"kernel/dial.go", "(*Client).dialLocked", "go", "the client", "the dial's end, which is bounded; Close waits for it"},
	{"kernel/dial.go", "(*Client).attempt", "context.AfterFunc", "who dials", "it cancels a context, once, when the client is closed; stopped when the attempt has ended"},
	{"kernel/connhandler.go", "(*connHandler).Started", "go", "the program's OnConn", "its return"},
	{"kernel/dispatch.go", "(*endpoint).begin", "go", "the connection's count of handlers", "the handler's return"},
	{"kernel/dispatch.go", "(*endpoint).authorized", "context.AfterFunc", "the offer", "it ends a wait, once; stopped when the answer is there"},
	{"kernel/kerneltest/kerneltest.go", "Start", "go", "the test", "the server's Close; the cleanup waits for it"},
	{"kernel/observe.go", "(*observing).push", "go", "the server or client", "no call of the Observer waits; Close waits for that, 1 s at most, and drops the rest"},
	{"kernel/observe.go", "(*observing).run", "go", "the server or client", "the same, after the Observer has ended the goroutine"},
	{"kernel/server.go", "(*Server).Serve", "go", "Serve", "a listener that fails or is closed; Serve waits for that, 100 ms at most after all else has ended"},
	{"kernel/server.go", "(*Server).Serve", "go", "the connections that came by a listener that failed", "the last one's end; only it is left to wait for it"},
	{"retry/hedge.go", "(*hedge).begin", "go", "the call", "the end of the attempt, whose context ends with the call; nobody waits for a Caller that ignores it"},
	{"rpc/binding.go", "(*sinkBinding).whenSendDone", "go", "the sink", "the end of the call that is under way, and then of the sending half"},
	{"rpc/sinkchannel.go", "(*Sink).Out", "go", "the sink", "the failure of the call that is under way, or the end of the sending half, or C's closing"},
	{"rpc/source.go", "(*Source).In", "go", "the source", "the stream's end, or this side reading no more, or closing the connection; it closes C then"},
	{"rpc/source.go", "(*Source).Go", "go", "the program's function", "its return"},
	{"rpc/servercall.go", "(*callStream).run", "go", "the program's function", "its return; the call's handler waits for it if it runs still"},
	{"rpc/servercall.go", "(*serverCall).serve", "go", "the call's handler, or its stream", "the program's function; serve waits for it if the handler counts until then"},
}
