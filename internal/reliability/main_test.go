package reliability

import (
	"flag"
	"os"
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

var (
	runs   = flag.Int("runs", 200, "how many scenarios the matrix runs")
	from   = flag.Uint64("from", 1, "the first scenario's seed")
	seed   = flag.Uint64("seed", 0, "the only scenario to run; 0: -runs of them")
	at     = flag.Int64("at", -1, "the only byte at which sweeps break a session; -1: one of -share")
	share  = flag.Int64("share", 100, "a sweep breaks one of so many bytes, which ones -from decides")
	counts = flag.Bool("messages", false, "messages that are not released are leaks, in builds that count them")
	system = flag.Bool("system", false, "kill, stop and drain processes, too")
	report = flag.String("report", "", "the file that the matrix writes its table to")
	tell   = flag.Bool("tell", false, "print what each scenario is, and how it ended")
)

// role is the environment variable that makes the test's binary another process of it.
const role = "SLUICE_RELIABILITY_ROLE"

// countsToo is the environment variable that passes -messages on.
const countsToo = "SLUICE_RELIABILITY_MESSAGES"

// ofSystem skips a test of what happens to processes, unless it was asked for.
func ofSystem(t *testing.T) {
	if !*system {
		t.Skip("-system kills, stops and drains processes")
	}
}

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		leak.Main(m)
	case "server":
		serve()
	default:
		victim()
	}
}
