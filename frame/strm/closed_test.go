package strm

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/pool"
)

// A connection may end at any byte. What the reader has collected by then goes back.
func TestWhatIsCollectedGoesBackWithTheConnection(t *testing.T) {
	paths, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d conversations, %v", len(paths), err)
	}
	base, held := counted(t), false
	for _, path := range paths {
		var said []byte // by the client
		for _, l := range conversation(t, path) {
			if !l.server {
				said = append(said, l.raw...)
			}
		}
		for at := range min(len(said), 1000) {
			s := &side{Session: connect(t, false, "")}
			s.feed(said[:at])
			held = held || pool.Outstanding() > base
			s.Closed()
			if n := pool.Outstanding() - base; n != 0 {
				t.Fatalf("%s, cut after %d bytes: %d messages are still held", filepath.Base(path), at, n)
			}
		}
	}
	if !held {
		t.Error("no cut had anything to give back")
	}
}

// So does what has come for streams whose request is not answered yet.
func TestWhatCameEarlyGoesBackWithTheConnection(t *testing.T) {
	base := counted(t)
	c := &side{Session: connect(t, true, "")}
	control(c.Session, opening(1, 2))
	for range 10 {
		c.feed(parseShown(t, `STRM 1=3 2=71 3=3 4=0 "`+strings.Repeat("early", 2000)+`"`))
	}
	if c.err != nil || pool.Outstanding() == base {
		t.Fatal("nothing is kept:", c.err)
	}
	c.Closed()
	if n := pool.Outstanding() - base; n != 0 {
		t.Errorf("%d messages are still held", n)
	}
}

// counted is how many messages are held. It skips the test if nobody counts them.
func counted(t *testing.T) int64 {
	t.Helper()
	base := pool.Outstanding()
	m := pool.New(1)
	defer m.Release()
	if pool.Outstanding() == base {
		t.Skip("this build does not count messages: use -race or -tags invariants")
	}
	return base
}
