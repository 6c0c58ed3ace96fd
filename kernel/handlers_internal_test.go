package kernel

import (
	"context"
	"testing"
)

// A length is looked up once, however many patterns have it.
func TestPrefixesAreLookedUpByLength(t *testing.T) {
	var hs Handlers
	for c := 'a'; c <= 'z'; c++ {
		hs.Handle(string(c)+"/", func(_ context.Context, _ *Stream) error { return nil })
	}
	if len(hs.prefixes) != 1 {
		t.Errorf("%d lengths", len(hs.prefixes))
	}
}
