package programs

import (
	"flag"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/leak"
)

var (
	runFor = flag.Duration("for", 10*time.Second, "how long random programs run, on all wires together")
	seed   = flag.Uint64("seed", 0, "the only program to run; 0: from -from on, as many as there is time for")
	from   = flag.Uint64("from", 1, "the first program to run, so that a long run can be made in pieces")
	tell   = flag.Bool("tell", false, "print what each program does")
)

func TestMain(m *testing.M) { leak.Main(m) }
