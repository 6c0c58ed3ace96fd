package interop

import (
	"io"
	"slices"
	"strconv"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = testkit.Patience

type (
	world   = testkit.World
	starter = testkit.Starter
)

var (
	inBubble     = testkit.InBubble
	newWorld     = testkit.New
	loops        = testkit.Loops
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
	listen       = testkit.Listen
	heldBy       = testkit.HeldBy
	unreadOf     = testkit.UnreadOf
	md           = testkit.MetadataOf
	decimal      = strconv.Itoa
)

// A target is a server under attack.
type target struct{ *testkit.Target }

func newTarget(t *testing.T, bubble bool, opts kernel.ServerOptions) *target {
	t.Helper()
	return &target{testkit.NewTarget(t, bubble, opts)}
}

type (
	intSink   = rpc.Sink[int32]
	intSource = rpc.Source[int32]
)

func newSink(t testing.TB, w *world) *intSink {
	t.Helper()
	return testkit.Must[*intSink](t)(rpc.NewSink[int32](w.Ctx, w.Client, nil))
}

// endsInOrder checks that src has ended in order, and stays so.
func endsInOrder[T any](t testing.TB, w *world, src *rpc.Source[T]) {
	t.Helper()
	for range 2 {
		if v, err := src.Receive(w.Ctx); err != io.EOF {
			t.Fatalf("received %v, %v; want io.EOF", v, err)
		}
	}
	ok(t, src.Err())
}

// overhead is what a message costs of the credit beside its length.
const overhead = 32

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// ends is what a row may end.
type ends int

const (
	nothing    ends = iota
	stream          // the row's stream is reset or refused, with the code
	connection      // the connection
)

// brpcOver is start with brpc beside sluice's own protocol.
func brpcOver(start starter) starter {
	return func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		s, c := *so, *co
		s.Protocols, c.Protocols = bothWires(), []frame.Protocol{strm.Protocol{}}
		return start(t, &s, &c)
	}
}
