package kernel_test

import (
	"strconv"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	patience    = testkit.Patience
	raceEnabled = testkit.RaceEnabled
)

type (
	starter   = testkit.Starter
	journal   = testkit.Journal
	plainConn = testkit.PlainConn
)

var (
	loops        = testkit.Loops
	certificates = testkit.Certificates
	certificate  = testkit.Certificate
	serve        = testkit.Serve
	listen       = testkit.Listen
	quietServer  = testkit.QuietServer
	quietClient  = testkit.QuietClient
	eventually   = testkit.Eventually
	wantCode     = testkit.WantCode
	text         = testkit.Text
	sized        = testkit.Sized
	echo         = testkit.Echo
	drain        = testkit.Drain
	ok           = testkit.OK
	isErr        = testkit.IsErr
	targetLimits = testkit.TargetLimits
	allocated    = testkit.Allocated
	feeders      = testkit.Feeders
	heldBy       = testkit.HeldBy
	unreadOf     = testkit.UnreadOf
	md           = testkit.MetadataOf
	decimal      = strconv.Itoa
)

// A world is a server and a client that are connected, by a protocol that may lack
// something.
type world struct {
	*testkit.World
	caps  frame.Caps // of the client's first connection
	other *foreign   // the protocol, where it is not sluice's own
}

// overAll runs f over every transport, and over every foreign protocol that can
// carry it.
func overAll(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	overNative(t, so, co, f)
	for _, p := range foreigns {
		if p.lacks(t.Name()) {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			f(t, newWorld(t, p.start, so, co))
		})
	}
}

// inBubble runs f in memory, where time stands still until all goroutines wait.
func inBubble(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	testkit.InBubble(t, so, co, func(t *testing.T, w *testkit.World) { f(t, known(w)) })
}

func newWorld(t testing.TB, start starter, so *kernel.ServerOptions, co *kernel.ClientOptions) *world {
	t.Helper()
	return known(testkit.New(t, start, so, co))
}

// overNative runs f over every transport of sluice's own protocol.
func overNative(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	testkit.OverNative(t, so, co, func(t *testing.T, w *testkit.World) { f(t, known(w)) })
}

// must is v, where nothing may go wrong.
func must[T any](t testing.TB) func(v T, err error) T { return testkit.Must[T](t) }

func wantClosed[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	testkit.WantClosed(t, what, c)
}

func wantOpen[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	testkit.WantOpen(t, what, c)
}
