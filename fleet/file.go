package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	filePoll = 200 * time.Millisecond
	// mostFile is how long a file may be: 10,000 endpoints have 300 KiB.
	mostFile = 16 << 20
)

// File returns the resolver of "file://PATH" that looks at the file's size, time and identity
// once in poll; zero is 200 ms, and what file:// in a target means. A line is an address, and
// behind white space a tag, up to a '#': brpc's format. A tag that is a number, or begins with
// one and white space, has the weight there. Lines that can't be read are left out, and named
// in Set.Err.
//
// A file that has changed is read when it was the same at two looks in a row, so that one that
// is being written counts when it is complete. One of more than 16 MiB is not read. A file that
// is gone or empty leaves the fleet with what it has.
func File(poll time.Duration) Resolver {
	if poll <= 0 {
		poll = filePoll
	}
	return func(ctx context.Context, name string, _ <-chan struct{}) <-chan Set {
		w := &fileWatch{path: name, poll: poll, sets: make(chan Set)}
		go w.run(ctx)
		return w.sets
	}
}

// A fileWatch looks at a file again and again.
type fileWatch struct {
	path string
	poll time.Duration
	sets chan Set

	read, seen fs.FileInfo // what was read last, and seen; nil: nothing was there
	failed     bool        // the last set was an error
}

func (w *fileWatch) run(ctx context.Context) {
	defer close(w.sets)
	for first := true; ; first = false {
		now, err := os.Stat(w.path)
		switch {
		case err != nil:
			now = nil
			if !w.failed {
				w.failed = true
				send(ctx, w.sets, Set{Err: err})
			}
		case first, w.failed, sameFile(now, w.seen) && !sameFile(now, w.read):
			w.load(ctx)
		}
		w.seen = now
		if !sleep(ctx, w.poll) {
			return
		}
	}
}

// sameFile reports whether a file has not changed.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// load reads the file and sends what it says.
func (w *fileWatch) load(ctx context.Context) {
	text, info, err := readFile(w.path)
	w.failed = err != nil
	if err != nil {
		send(ctx, w.sets, Set{Err: err})
		return
	}
	w.read = info
	set := parse(strings.Split(text, "\n"))
	if len(set.Endpoints) == 0 && set.Err == nil {
		set.Err = fmt.Errorf("%s: %w", w.path, errEmpty)
	}
	send(ctx, w.sets, set)
}

var errEmpty = errors.New("no endpoints")

// readFile returns a file's text, and what the file was when it was read.
func readFile(path string) (string, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > mostFile {
		return "", nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, mostFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, mostFile))
	return string(text), info, err
}
