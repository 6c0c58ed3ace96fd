package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A progress shows how far a demonstration is: on a terminal in one line that changes in
// place, elsewhere in a line a second.
type progress struct {
	d     *demonstration
	w     io.Writer
	live  bool
	done  chan struct{}
	ended sync.WaitGroup
}

func startProgress(d *demonstration, w io.Writer) *progress {
	p := &progress{d: d, w: w, live: isTerminal(w), done: make(chan struct{})}
	p.ended.Go(p.watch)
	return p
}

// stop ends the line, so that what is printed next has one of its own.
func (p *progress) stop() {
	close(p.done)
	p.ended.Wait()
}

func (p *progress) watch() {
	every := time.Second
	if p.live {
		every = 100 * time.Millisecond
		p.show(0, 0)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	bytes, at := int64(0), p.d.start
	for {
		select {
		case now := <-tick.C:
			b := p.d.bytes.Load()
			p.show(b, float64(b-bytes)/1e6/now.Sub(at).Seconds())
			bytes, at = b, now
		case <-p.done:
			if p.live {
				fmt.Fprint(p.w, "\r\x1b[K") // the summary replaces it
			}
			return
		}
	}
}

func (p *progress) show(bytes int64, rate float64) {
	part := 1.0
	if p.d.total > 0 {
		part = float64(bytes) / float64(p.d.total)
	}
	line := fmt.Sprintf("%3.0f %%  %10s  %5.0f MB/s  %s messages  ping %v  %s stalls",
		100*part, inBytes(bytes), rate, grouped(p.d.messages.Load()), micros(p.d.pings.last()), grouped(p.d.stalls.Load()))
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	const width = 12
	full := int(part * width)
	// Without wrapping: in a narrow window the line is cut instead of going on in
	// the next, from where it could not be drawn over.
	fmt.Fprintf(p.w, "\r\x1b[?7l[%s%s] %s\x1b[K\x1b[?7h", strings.Repeat("=", full), strings.Repeat(" ", width-full), line)
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
