package main

import (
	"context"
	"strings"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A wire is a protocol that the commands speak. The handlers and the client's code are
// the same for all of them but for these differences.
type wire struct {
	protocol frame.Protocol
	method   string // what call opens
	request  []byte // what it opens with
	whole    bool   // there is no half-close: both halves of a stream end together
	passed   bool   // a stream is opened by passing a sink to a call
}

func wires() []wire {
	return []wire{
		{protocol: native.Protocol{}, method: methodEcho},
		{protocol: strm.Protocol{}, method: methodBRPC, request: exampleMessage("I'm a RPC to connect stream").Bytes(), whole: true},
		{protocol: &seastar.Protocol{}, method: kernel.Verb(verbEcho), passed: true},
	}
}

func wireNames() string {
	var names []string
	for _, w := range wires() {
		names = append(names, w.protocol.Name())
	}
	return strings.Join(names, ",")
}

func findWire(name string) (wire, error) {
	for _, w := range wires() {
		if w.protocol.Name() == name {
			return w, nil
		}
	}
	return wire{}, usagef("no protocol %q; there are %s", name, wireNames())
}

// protocols are those in a list, to be told apart by a connection's first bytes.
func protocols(list string) (ps []frame.Protocol, err error) {
	for name := range strings.SplitSeq(list, ",") {
		w, err := findWire(name)
		if err != nil {
			return nil, err
		}
		ps = append(ps, w.protocol)
	}
	return ps, nil
}

// open opens a stream as the protocol's clients do.
func (w *wire) open(ctx context.Context, client *kernel.Client, method string) (*kernel.Stream, error) {
	if w.passed {
		return openPassed(ctx, client, method)
	}
	return client.Open(ctx, method, &kernel.OpenOptions{Request: pool.MessageOf(w.request)})
}

// end ends our half after everything that was sent. Without half-close it does nothing:
// done closes the stream, when everything has come back.
func (w *wire) end(s *kernel.Stream) error {
	if w.whole {
		return nil
	}
	return s.CloseSend()
}

// done is called when everything has come back. Without half-close it closes the stream.
func (w *wire) done(ctx context.Context, s *kernel.Stream) error {
	if w.whole {
		return s.Close(ctx)
	}
	return nil
}
