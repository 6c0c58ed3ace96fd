package kerneltest

import (
	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/internal/leak"
)

// LeakOptions are for goleak, in tests of programs that import package kernel: what runs then
// that nobody can stop. These are two goroutines of the worker pool that gnet, which serves
// event loops, makes when it is imported, and the pool's idle workers. A worker in the middle
// of a task is found.
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(m, kerneltest.LeakOptions()...) }
func LeakOptions() []goleak.Option { return leak.Allowed() }
