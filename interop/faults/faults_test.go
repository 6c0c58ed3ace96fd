package faults

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// TestMain fails if a goroutine is left of anything.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, kerneltest.LeakOptions()...) }

// Whatever byte a connection breaks at, streams are whole or end with an error. The command
// faults has more of them.
func TestAConnectionBreaksAnywhere(t *testing.T) {
	for _, p := range Pairs() {
		for _, k := range Kinds() {
			t.Run(p.Name+"/"+k.String(), func(t *testing.T) {
				r := Run{Kind: k, Seed: 1, Faults: 60, Parallel: 4, Limit: 20 * time.Second}
				res, err := r.Do(t.Context(), p)
				if err != nil {
					t.Error(err)
				}
				if res.Struck < r.Faults/2 || res.Broken == 0 || res.Clean == 0 {
					t.Errorf("these faults show nothing: %v", &res)
				}
			})
		}
	}
}

// What a stream must not do is noticed.
func TestAHalfIsChecked(t *testing.T) {
	const session, stream = 3, 2
	sizes := []int{10, 0, 20}
	m := func(number int) []byte { return makeMessage(session, stream, number, len(sizes), sizes[number]) }
	flipped := m(0)
	flipped[headerSize] ^= 1
	for name, c := range map[string]struct {
		comes [][]byte
		clean bool // the end
		wrong string
	}{
		"all":                      {[][]byte{m(0), m(1), m(2)}, true, ""},
		"cut by an error":          {[][]byte{m(0)}, false, ""},
		"an early end":             {[][]byte{m(0), m(1)}, true, "a clean end after 2 of 3 messages"},
		"an end without a message": {nil, true, "a clean end after 0 of 3 messages"},
		"twice":                    {[][]byte{m(0), m(0)}, false, "message 0 comes when it is 1's turn"},
		"one is missing":           {[][]byte{m(0), m(2)}, false, "message 2 comes when it is 1's turn"},
		"a flipped bit":            {[][]byte{flipped}, false, "corrupt"},
		"half a message":           {[][]byte{m(0)[:headerSize-1]}, false, "corrupt"},
		"another stream's":         {[][]byte{makeMessage(session, stream+1, 0, len(sizes), sizes[0])}, false, "another stream's"},
		"another length":           {[][]byte{makeMessage(session, stream, 0, len(sizes), sizes[0]+1)}, false, "has 31 bytes"},
	} {
		h := half{session: session, stream: stream, sizes: sizes}
		var err error
		for _, p := range c.comes {
			err = errors.Join(err, h.take(p))
		}
		if c.clean {
			err = errors.Join(err, h.end())
		}
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", name, err, c.wrong)
		}
	}
}
