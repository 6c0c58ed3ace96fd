package retry_test

import (
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
