// Package flags has the flags of the program's commands, and says which of them exclude
// each other.
package flags

import (
	"context"
	"crypto/tls"
	"flag"
	"io"
	"net"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/advice"
	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/cmd/echo/internal/credentials"
	"github.com/sluicerpc/sluice/cmd/echo/internal/data"
	"github.com/sluicerpc/sluice/cmd/echo/internal/pages"
	"github.com/sluicerpc/sluice/cmd/echo/internal/units"
	"github.com/sluicerpc/sluice/cmd/echo/internal/wire"
	"github.com/sluicerpc/sluice/pool"
)

// defaultAddr is where serve listens and call connects.
const defaultAddr = "127.0.0.1:7000"

// Serve are the flags of a server. Zero is the library's default.
type Serve struct {
	Addr, Protocols string
	credentials.Server
	Pages              pages.Flags
	MaxStreams         int
	MaxMessage, Window units.Bytes
	Idle, Drain        time.Duration
	Verbose            bool
}

// Register implements cli.Flags.
func (f *Serve) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.Addr, "addr", defaultAddr, "`HOST:PORT` to listen on, where port 0 takes a free one, or unix:PATH")
	fs.StringVar(&f.Protocols, "proto", wire.Names(), "`PROTOCOLS` to serve on the one port, told apart by a connection's first bytes")
	f.Server.Register(fs)
	f.Pages.Register(fs)
	fs.IntVar(&f.MaxStreams, "max-streams", 0, "streams that a client may have open on a connection (default 1000)")
	fs.Var(&f.MaxMessage, "max-message", "`SIZE` of the largest message taken (default 4M)")
	fs.Var(&f.Window, "window", "`SIZE` of what a client may have unread on one stream (default 1M)")
	fs.DurationVar(&f.Idle, "idle", 0, "end echo.select streams on which nothing was received for this long (default never)")
	fs.DurationVar(&f.Drain, "drain", 30*time.Second, "how long open streams may go on after the first signal")
	fs.BoolVar(&f.Verbose, "v", false, "log each stream when its handler has returned, those of "+wire.MethodBRPC+" excepted")
}

// Addr is what a client takes as -addr to reach the listener.
func Addr(ln net.Listener) string {
	if a := ln.Addr(); a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return ln.Addr().String()
}

// Check implements cli.Flags.
func (f *Serve) Check([]string) error { return nil }

// Call are the flags of a client.
type Call struct {
	advice.Call
	Protocol string
	credentials.Client
	OneWay bool

	Count, Streams int
	File           string
	Size           units.Bytes
}

// Register implements cli.Flags.
func (f *Call) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.Addr, "addr", defaultAddr, "`HOST:PORT` or unix:PATH of the server")
	fs.StringVar(&f.Protocol, "proto", "sluice", "`PROTOCOL` to speak, of "+wire.Names())
	fs.StringVar(&f.Method, "method", "", "what to open: echo or echo.select, or "+wire.MethodBRPC+" over brpc (default the protocol's first)")
	fs.BoolVar(&f.OneWay, "one-way", false, "the server answers nothing: only send, lines of standard input")
	f.Client.Register(fs)
	fs.DurationVar(&f.Timeout, "timeout", 0, "give up after this long (default never)")
	fs.IntVar(&f.Count, "count", 0, "send this many generated messages on each stream, and check what comes back")
	fs.StringVar(&f.File, "file", "", "send this `FILE`, and check what comes back")
	f.Size = 1 << 10
	fs.Var(&f.Size, "size", "`SIZE` of a message, with -count or -file")
	fs.IntVar(&f.Streams, "streams", 1, "streams to use at once, with -count or -file")
}

// Check implements cli.Flags.
func (f *Call) Check([]string) error {
	switch {
	case f.Count < 0 || f.Streams < 1 || f.Timeout < 0:
		return cli.Usagef("-count and -timeout can't be negative, and -streams starts at 1")
	case f.Count > 0 && f.File != "":
		return cli.Usagef("-count generates messages: leave -file out")
	case f.File != "" && f.Size == 0:
		return cli.Usagef("a file can't be sent in messages of 0 bytes")
	case f.Size > pool.MaxLen:
		return cli.Usagef("no message is larger than 1G")
	case f.Lines() && f.Streams > 1:
		return cli.Usagef("lines go over one stream: -streams needs -count or -file")
	case !f.Lines() && f.OneWay:
		return cli.Usagef("-count and -file check what comes back: -one-way is for lines")
	}
	return nil
}

// Health are the flags of a client that asks whether a server is well.
type Health struct {
	advice.Call
	credentials.Client
}

// Register implements cli.Flags.
func (f *Health) Register(fs *flag.FlagSet) {
	f.Client.Register(fs)
	fs.DurationVar(&f.Timeout, "timeout", 3*time.Second, "how long the server may take")
}

// Check implements cli.Flags. The argument is the server's address.
func (f *Health) Check(args []string) error {
	f.Addr = defaultAddr
	if len(args) > 0 {
		f.Addr = args[0]
	}
	if f.Timeout <= 0 {
		return cli.Usagef("-timeout must be positive")
	}
	return nil
}

// Credentials are those to dial with.
func (f *Health) Credentials() (*tls.Config, []byte, error) {
	c, token, err := f.Client.Credentials()
	f.Secure = c != nil
	return c, token, err
}

// Context ends after -timeout.
func (f *Health) Context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), f.Timeout)
}

// Context ends after -timeout.
func (f *Call) Context() (context.Context, context.CancelFunc) {
	if f.Timeout == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), f.Timeout)
}

// Credentials are the client's.
func (f *Call) Credentials() (*tls.Config, []byte, error) {
	c, token, err := f.Client.Credentials()
	f.Secure = c != nil
	return c, token, err
}

// Lines tells that lines of standard input are to be sent, and not Parts.
func (f *Call) Lines() bool { return f.Count == 0 && f.File == "" }

// Parts is what each stream carries, to be closed after use.
func (f *Call) Parts() ([]data.Part, io.Closer, error) {
	if f.File == "" {
		return data.Repeated(f.Streams, int(f.Size), f.Count), io.NopCloser(nil), nil
	}
	file, length, err := data.Open(f.File)
	if err != nil {
		return nil, nil, err
	}
	return data.Even(file, length, f.Streams, int(f.Size)), file, nil
}

// Demo are the flags of a demonstration.
type Demo struct {
	Size    units.Bytes
	Streams int
	seed    uint64
	file    string
}

// Register implements cli.Flags.
func (f *Demo) Register(fs *flag.FlagSet) {
	f.Size = 256 << 20
	fs.Var(&f.Size, "size", "`SIZE` of the generated data, without a FILE")
	fs.IntVar(&f.Streams, "streams", 4, "streams that share the data")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of the messages' sizes and of generated data")
}

// Check implements cli.Flags.
func (f *Demo) Check(args []string) error {
	if f.Streams < 1 || f.Streams > 500 {
		return cli.Usagef("-streams must be 1 to 500")
	}
	if len(args) > 0 {
		f.file = args[0]
	}
	return nil
}

// Parts is what each stream carries, to be closed after use. It sets Size to the file's.
func (f *Demo) Parts() ([]data.Part, io.Closer, error) {
	if f.file == "" {
		return data.Mixed(data.Generated(f.seed), int64(f.Size), f.Streams, f.seed), io.NopCloser(nil), nil
	}
	file, length, err := data.Open(f.file)
	if err != nil {
		return nil, nil, err
	}
	f.Size = units.Bytes(length)
	return data.Mixed(file, length, f.Streams, f.seed), file, nil
}
