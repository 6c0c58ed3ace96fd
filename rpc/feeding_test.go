package rpc_test

import (
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
)

// channelOf is C of a source of s.
func channelOf(t testing.TB, s *kernel.Stream) <-chan pool.Message {
	return testkit.Must[*rpc.Source[pool.Message]](t)(rpc.SourceOf[pool.Message](s, nil)).In()
}

// A source's channel waits no longer either, nor when its stream was over already; the
// context that the stream was opened with ends such a wait too.
func TestCloseWaitsForNoReaderOfC(t *testing.T) {
	testkit.CloseWaitsForNoReader(t, 1, channelOf)
}

// Who asks for C of a stream that is over is fed like others, and waited for no longer
// than others, whatever comes first: the question, or what ends the wait.
func TestCAskedForLateWaitsForNoReader(t *testing.T) {
	testkit.AskedLate(t, func(w *world, s *kernel.Stream) (int, func()) {
		c := channelOf(w.T, s)
		if m, ok := <-c; ok {
			m.Release()
		}
		return testkit.Unknown, func() { testkit.WantClosed(w.T, "C", c) } // it lets go what it has in hand
	})
}
