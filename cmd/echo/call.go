package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

type callFlags struct {
	addr    string
	proto   string
	wire    wire
	method  string
	tls     clientTLS
	timeout time.Duration

	streams int
	size    byteCount
	count   int
	file    string
	oneWay  bool
}

func (f *callFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.addr, "addr", defaultAddr, "`HOST:PORT` or unix:PATH of the server")
	fs.StringVar(&f.proto, "proto", "sluice", "`PROTOCOL` to speak, of "+wireNames())
	fs.StringVar(&f.method, "method", "", "what to open: "+methodEcho+" or "+methodSelect+", or "+methodBRPC+" over brpc (default the protocol's first)")
	fs.BoolVar(&f.oneWay, "one-way", false, "the server answers nothing: only send, lines of standard input")
	f.tls.register(fs)
	fs.DurationVar(&f.timeout, "timeout", 0, "give up after this long (default never)")
	fs.IntVar(&f.count, "count", 0, "send this many generated messages on each stream, and check what comes back")
	fs.StringVar(&f.file, "file", "", "send this `FILE`, and check what comes back")
	f.size = 1 << 10
	fs.Var(&f.size, "size", "`SIZE` of a message, with -count or -file")
	fs.IntVar(&f.streams, "streams", 1, "streams to use at once, with -count or -file")
}

func (f *callFlags) check() error {
	load := f.count != 0 || f.file != ""
	switch {
	case f.count < 0 || f.streams < 1 || f.timeout < 0:
		return usagef("-count and -timeout can't be negative, and -streams starts at 1")
	case f.count > 0 && f.file != "":
		return usagef("-count generates messages: leave -file out")
	case f.file != "" && f.size == 0:
		return usagef("a file can't be sent in messages of 0 bytes")
	case f.size > 1<<30:
		return usagef("no message is larger than 1G")
	case !load && f.streams > 1:
		return usagef("lines go over one stream: -streams needs -count or -file")
	case load && f.oneWay:
		return usagef("-count and -file check what comes back: -one-way is for lines")
	}
	return nil
}

// call runs a client: it dials, opens streams, uses them, and closes.
func call(c *command, args []string, std stdio) error {
	var f callFlags
	fs := flag.NewFlagSet("call", flag.ContinueOnError)
	f.register(fs)
	if _, err := c.parse(fs, args, 0, std); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	var err error
	if f.wire, err = findWire(f.proto); err != nil {
		return err
	}
	if f.method == "" {
		f.method = f.wire.method
	}
	tlsConfig, err := f.tls.config()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}

	// Dial connects now, so that an error shows at once. The client connects again
	// whenever it has to.
	client, err := kernel.Dial(ctx, f.addr, &kernel.ClientOptions{
		TLS:       tlsConfig,
		Protocols: []frame.Protocol{f.wire.protocol},
		// What comes back is as large as what we send, and the default limit is
		// 4 MiB. The server has a limit of its own.
		Limits: kernel.Limits{MaxMessage: max(int(f.size), 4<<20)},
	})
	if err != nil {
		return f.explain(err)
	}
	defer client.Close()
	if f.count == 0 && f.file == "" {
		err = f.lines(ctx, client, std)
	} else {
		err = f.load(ctx, client, std)
	}
	return f.explain(err)
}

// lines sends each line of standard input, and prints each reply.
func (f *callFlags) lines(ctx context.Context, client *kernel.Client, std stdio) error {
	// The context of Open bounds the stream. The goroutine that reads standard input
	// cancels it when it fails, to end the other one.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s, err := f.wire.open(ctx, client, f.method)
	if err != nil {
		return err
	}
	if f.oneWay {
		if _, err := f.sendLines(ctx, s, std.in); err != nil {
			return err
		}
		return s.Close(ctx)
	}
	// Reading standard input can't be interrupted, so nothing waits for this goroutine:
	// if the stream ends first, the program exits while it still reads.
	sent := make(chan int, 1)
	go func() {
		n, err := f.sendLines(ctx, s, std.in)
		if err != nil {
			fail(err)
		}
		sent <- n
	}()
	return f.printReplies(ctx, s, sent, std)
}

// printReplies prints what comes back until the server's half ends. Over a protocol
// without half-close it closes the stream when as many lines have come as were sent.
func (f *callFlags) printReplies(ctx context.Context, s *kernel.Stream, sent <-chan int, std stdio) error {
	out := bufio.NewWriter(std.out)
	in, lines, known := s.In(), 0, false
	var all <-chan int
	if f.wire.whole {
		all = sent
	}
	want := 0
	for {
		if known && lines >= want {
			return first(context.Cause(ctx), s.Close(ctx))
		}
		var m pool.Message
		ok := true
		select {
		case m, ok = <-in:
		case want = <-all:
			known = true
			continue
		}
		if !ok {
			return first(context.Cause(ctx), s.Err())
		}
		lines++
		_, _ = out.Write(m.Bytes())
		_ = out.WriteByte('\n') // Flush returns the writer's first error
		m.Release()
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// first is cause if there is one: it came before err.
func first(cause, err error) error {
	if cause != nil {
		return cause
	}
	return err
}

// sendLines returns how many it sent.
func (f *callFlags) sendLines(ctx context.Context, s *kernel.Stream, r io.Reader) (int, error) {
	in := bufio.NewReader(r)
	for n := 0; ; {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			// ReadBytes made the slice for us alone, so it can become the message
			// without a copy.
			m := pool.MessageOf([]byte(strings.TrimSuffix(string(line), "\n")))
			if err := s.Send(ctx, m); err != nil {
				return n, why(s, err)
			}
			n++
		}
		switch {
		case errors.Is(err, io.EOF):
			return n, f.wire.end(s) // the server echoes what it has received, and ends its half
		case err != nil:
			return n, fmt.Errorf("standard input: %w", err)
		}
	}
}

// load sends a file or generated messages over several streams of one connection.
func (f *callFlags) load(ctx context.Context, client *kernel.Client, std stdio) error {
	parts, done, err := f.parts()
	if err != nil {
		return err
	}
	defer done()
	var n counts
	start := time.Now()
	t := newGroup(ctx)
	for _, p := range parts {
		t.run(func() error {
			s, err := f.wire.open(t.ctx, client, f.method)
			if err == nil {
				t.exchange(&f.wire, s, p, &n)
			}
			return err
		})
	}
	if err := t.wait(); err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	_, err = fmt.Fprintf(std.err, "%s messages, %s bytes on %d streams came back intact in %.2f s: %.1f MB/s, %s messages/s, %s stalls for credit\n",
		grouped(n.messages.Load()), grouped(n.bytes.Load()), f.streams, took,
		float64(n.bytes.Load())/1e6/took, grouped(int64(float64(n.messages.Load())/took)), grouped(n.stalls.Load()))
	return err
}

// parts is what each stream sends, and a function to call when that is done.
func (f *callFlags) parts() ([]part, func(), error) {
	parts := make([]part, f.streams)
	if f.file == "" {
		for i := range parts {
			each := int64(f.size) * int64(f.count)
			parts[i] = part{generated(1), repeated(int64(i)*each, int(f.size), f.count)}
		}
		return parts, func() {}, nil
	}
	file, length, err := openFile(f.file)
	if err != nil {
		return nil, nil, err
	}
	for i := range parts {
		off, n := share(length, i, f.streams)
		parts[i] = part{file, even(off, n, int(f.size))}
	}
	return parts, func() { _ = file.Close() }, nil
}

// explain turns an error into what a user can do about it. The type of the library's
// errors tells what has ended, their code or cause why.
func (f *callFlags) explain(err error) error {
	var (
		ce *status.ConnError
		se *status.StreamError
		ua x509.UnknownAuthorityError
	)
	switch {
	case err == nil:
		return nil
	case f.timeout > 0 && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("gave up after %v", f.timeout)
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &ce) && ce.Op == "dial" && errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("no server listens on %s; start one with: echo serve -addr %s", f.addr, f.addr)
	case errors.As(err, &ua):
		return fmt.Errorf("the certificate of %s is signed by an unknown authority; name that with -ca, or try -insecure", f.addr)
	case errors.As(err, &se) && se.Code == status.ConnectionLost:
		return fmt.Errorf("lost the connection to %s in mid-stream: %w", f.addr, lastCause(se))
	case errors.As(err, &se) && se.NotProcessed && se.Code == status.GoingAway:
		return fmt.Errorf("%s is shutting down and did not process the stream", f.addr)
	case errors.As(err, &se) && se.Refused && se.Code == status.Unimplemented:
		return fmt.Errorf("%s has no method %q", f.addr, f.method)
	case errors.As(err, &ce) && ce.Op == "handshake" && strings.Contains(err.Error(), "certificate required"):
		return fmt.Errorf("%s requires a client certificate; give -cert and -key", f.addr)
	case errors.As(err, &ce) && ce.Op == "handshake" && closedByPeer(err) && f.tls.on:
		return fmt.Errorf("%s closed the connection in the TLS handshake; if it serves plain text, leave the TLS flags out", f.addr)
	case errors.As(err, &ce) && ce.Op == "handshake" && closedByPeer(err):
		return fmt.Errorf("%s closed the connection in the handshake; if it serves TLS, try -tls", f.addr)
	}
	return err
}

// lastCause is the innermost error, such as the system's.
func lastCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// closedByPeer tells whether the peer ended the connection without a reason.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded)
}
