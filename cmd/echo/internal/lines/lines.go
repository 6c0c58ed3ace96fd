// Package lines makes a channel of an input's lines.
package lines

import (
	"bufio"
	"errors"
	"io"
)

// A Reader reads lines.
type Reader struct {
	c   chan []byte
	err error // before c is closed
}

// Read reads r to its end, in a goroutine: nothing else may read r. Who stops receiving
// before the end leaves the goroutine waiting; it ends with the process, since a read of
// standard input can't be interrupted.
func Read(r io.Reader) *Reader {
	l := &Reader{c: make(chan []byte)}
	go l.read(bufio.NewReader(r))
	return l
}

// C has the lines, without their newlines; it is closed after the last. A line belongs to
// who receives it.
func (l *Reader) C() <-chan []byte { return l.c }

// Err says, when C is closed, why: nil at the input's end.
func (l *Reader) Err() error { return l.err }

func (l *Reader) read(in *bufio.Reader) {
	defer close(l.c)
	for {
		line, err := in.ReadBytes('\n') // a slice of its own
		if n := len(line); n > 0 {
			if line[n-1] == '\n' {
				line = line[:n-1]
			}
			l.c <- line
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			l.err = err
			return
		}
	}
}
