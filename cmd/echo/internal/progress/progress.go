// Package progress shows how far a transfer of bytes is.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/units"
)

// A Bar shows progress until it is stopped: on a terminal in one line that changes in
// place, elsewhere in a line a second.
type Bar struct {
	w      io.Writer
	live   bool
	total  int64
	status func() (done int64, more string)
	over   chan struct{} // closed by Stop
	ended  sync.WaitGroup
}

// Start starts a bar for total bytes. It calls status, from a goroutine of its own, for how
// many of them are done and for what else to show.
func Start(w io.Writer, total int64, status func() (done int64, more string)) *Bar {
	b := &Bar{w: w, live: isTerminal(w), total: total, status: status, over: make(chan struct{})}
	b.ended.Go(b.watch)
	return b
}

// Stop ends the line, so that what is printed next has one of its own. status is not
// called any more when it returns.
func (b *Bar) Stop() {
	close(b.over)
	b.ended.Wait()
}

func (b *Bar) watch() {
	every := time.Second
	if b.live {
		every = 100 * time.Millisecond
		b.show(0)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	before, at := int64(0), time.Now()
	for {
		select {
		case now := <-tick.C:
			done, _ := b.status()
			b.show(float64(done-before) / 1e6 / now.Sub(at).Seconds())
			before, at = done, now
		case <-b.over:
			if b.live {
				fmt.Fprint(b.w, "\r\x1b[K") // the summary replaces it
			}
			return
		}
	}
}

func (b *Bar) show(rate float64) {
	done, more := b.status()
	part := 1.0
	if b.total > 0 {
		part = float64(done) / float64(b.total)
	}
	line := fmt.Sprintf("%3.0f %%  %10s  %5.0f MB/s  %s", 100*part, units.InBytes(done), rate, more)
	if !b.live {
		fmt.Fprintln(b.w, line)
		return
	}
	const width = 12
	full := int(part * width)
	// Without wrapping: in a narrow window the line is cut instead of going on in
	// the next, from where it could not be drawn over.
	fmt.Fprintf(b.w, "\r\x1b[?7l[%s%s] %s\x1b[K\x1b[?7h", strings.Repeat("=", full), strings.Repeat(" ", width-full), line)
}

// isTerminal tells whether w is a terminal with cursor control.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
