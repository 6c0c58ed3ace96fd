// Package guide_test holds the code of the guide, of the README and of the first steps,
// where it is compiled and run. The file that has a page's name has its code.
package guide_test

import (
	"testing"

	"github.com/sluicerpc/sluice/internal/leak"
	"github.com/sluicerpc/sluice/internal/testkit"
)

func TestMain(m *testing.M) { leak.Main(m) }

type world = testkit.World

var (
	inBubble = testkit.InBubble
	text     = testkit.Text
	sized    = testkit.Sized
)
