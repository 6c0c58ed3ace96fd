package dubbo_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// TestMain fails if a goroutine is left of anything.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, kerneltest.LeakOptions()...) }
