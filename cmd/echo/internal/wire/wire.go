// Package wire is what differs between the protocols for a program that sends back what it
// receives: what their own programs call an echo, and how they open and end a stream.
package wire

import (
	"context"
	"strings"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
)

// MethodBRPC is the service of brpc's own examples (example/echo_c++,
// streaming_echo_c++, streaming_batch_echo_c++): their clients can talk to a server of
// ours, and ours to their servers.
const MethodBRPC = "example.EchoService/Echo"

// verbEcho is the echo's number: Seastar's clients call by number.
const verbEcho = 1

// All are the protocols.
func All() []frame.Protocol {
	return []frame.Protocol{native.Protocol{}, strm.Protocol{}, &seastar.Protocol{}, triple.Protocol{}}
}

// Names are their names, in a list as Parse takes it.
func Names() string {
	var names []string
	for _, p := range All() {
		names = append(names, p.Name())
	}
	return strings.Join(names, ",")
}

// Parse finds the protocols of a list.
func Parse(list string) (ps []frame.Protocol, err error) {
	for name := range strings.SplitSeq(list, ",") {
		p, err := find(name)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// First is all protocols, the named one first: it is that of a target which names none.
func First(name string) ([]frame.Protocol, error) {
	p, err := find(name)
	if err != nil {
		return nil, err
	}
	return append([]frame.Protocol{p}, All()...), nil
}

func find(name string) (frame.Protocol, error) {
	for _, p := range All() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, cli.Usagef("no protocol %q; there are %s", name, Names())
}

// Method is what a client of ours asks for over the protocol of c, unless it is told
// otherwise: the protocol's own echo, or native.
func Method(c kernel.Caller, native string) string {
	switch c.Caps().Name {
	case strm.Protocol{}.Name():
		return MethodBRPC
	case (&seastar.Protocol{}).Name():
		return kernel.Verb(verbEcho)
	}
	return native
}

// Open opens a stream as the protocol's own clients do.
func Open(ctx context.Context, c kernel.Caller, method string) (*kernel.Stream, error) {
	if c.Caps().StreamsByID {
		return openPassed(ctx, c, method)
	}
	var opts kernel.OpenOptions
	if method == MethodBRPC {
		opts.Request = exampleMessage("I'm a RPC to connect stream")
	}
	return c.Open(ctx, method, &opts)
}

// CloseSend ends our half of s after everything that was sent. Where the protocol can't end
// one half alone it does nothing, and WholeEnds says so.
func CloseSend(s *kernel.Stream) error {
	if WholeEnds(s) {
		return nil
	}
	return s.CloseSend()
}

// WholeEnds tells that both halves of s end together. A client closes such a stream when
// all that it waits for has come.
func WholeEnds(s *kernel.Stream) bool { return !s.Conn().Caps().HalfClose }
