// Package all lists the peers by name.
package all

import (
	"fmt"
	"strings"

	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/connectpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/crosspeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/drpcpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/gnetpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/grpcpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/kitexpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/muxpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/natspeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/quicpeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/raw"
	"github.com/sluicerpc/sluice/benchmarks/peer/sluicepeer"
	"github.com/sluicerpc/sluice/benchmarks/peer/wspeer"
)

// Peers returns every peer, in the order of the tables.
func Peers() []peer.Peer {
	return append(sluicepeer.Peers(),
		raw.New(),
		raw.NewUnbatched(),
		gnetpeer.New(),
		grpcpeer.New(),
		grpcpeer.NewLargeWindow(),
		grpcpeer.NewContrib(),
		crosspeer.New(grpcpeer.New(), sluicepeer.GRPC()),
		crosspeer.New(grpcpeer.New(), sluicepeer.HandledGRPC()),
		crosspeer.New(sluicepeer.GRPC(), grpcpeer.New()),
		drpcpeer.New(false),
		drpcpeer.New(true),
		muxpeer.Yamux(false),
		muxpeer.Yamux(true),
		muxpeer.Smux(false),
		muxpeer.Smux(true),
		quicpeer.New(false),
		quicpeer.New(true),
		wspeer.New(),
		kitexpeer.New(),
		connectpeer.New(),
		natspeer.New(),
	)
}

// Names returns the names of Peers.
func Names() []string {
	var names []string
	for _, p := range Peers() {
		names = append(names, p.Name())
	}
	return names
}

// Find returns the peer of that name.
func Find(name string) (peer.Peer, error) {
	for _, p := range Peers() {
		if p.Name() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no peer %q; there are %s", name, strings.Join(Names(), ", "))
}
