package programs

import (
	"flag"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/leak"
)

var (
	runFor = flag.Duration("for", 10*time.Second, "how long random programs run, on all wires together")
	seed   = flag.Uint64("seed", 0, "the only program to run; 0: from 1 on, as many as there is time for")
	tell   = flag.Bool("tell", false, "print what each program does")
)

func TestMain(m *testing.M) { leak.Main(m) }
