package rpc_test

import (
	"reflect"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	patience    = testkit.Patience
	raceEnabled = testkit.RaceEnabled
)

type (
	world   = testkit.World
	starter = testkit.Starter
	journal = testkit.Journal
)

var (
	overNative  = testkit.OverNative
	inBubble    = testkit.InBubble
	newWorld    = testkit.New
	loops       = testkit.Loops
	netConn     = testkit.NetConn
	quietServer = testkit.QuietServer
	quietClient = testkit.QuietClient
	eventually  = testkit.Eventually
	wantCode    = testkit.WantCode
	text        = testkit.Text
	sized       = testkit.Sized
	echo        = testkit.Echo
	listen      = testkit.Listen
	ok          = testkit.OK
	isErr       = testkit.IsErr
)

// takes receives the next value, which must be want.
func takes[T any](t testing.TB, w *world, src *rpc.Source[T], want T) {
	t.Helper()
	if v, err := src.Receive(w.Ctx); err != nil || !reflect.DeepEqual(v, want) {
		t.Fatalf("received %v, %v; want %v", v, err, want)
	}
}

type pairOfInts struct {
	A int32
	B int64
}

// overSeastar connects a server that speaks Seastar's protocol beside sluice's own with a
// client that speaks it.
func overSeastar(t *testing.T) *world {
	t.Helper()
	return newWorld(t, onSeastar(loops), nil, nil)
}

// overWires runs f over every transport of sluice's own protocol, and over gRPC.
func overWires(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	overNative(t, so, co, f)
	t.Run("grpc", func(t *testing.T) {
		s, c := testkit.OrZero(so), testkit.OrZero(co)
		s.Protocols, c.Protocols = []frame.Protocol{triple.Protocol{}}, []frame.Protocol{triple.Protocol{}}
		f(t, newWorld(t, loops, &s, &c))
	})
}
