// Package crosspeer drives the client of one library against the server of another that
// speaks the same protocol.
package crosspeer

import (
	"context"

	"github.com/sluicerpc/sluice/benchmarks/peer"
)

type cross struct{ client, server peer.Peer }

// New returns client's connections to server's servers. Its name is "client@server".
func New(client, server peer.Peer) peer.Peer { return cross{client, server} }

func (c cross) Name() string { return c.client.Name() + "@" + c.server.Name() }

func (c cross) Serve(addr string, o peer.Options) (peer.Server, error) {
	return c.server.Serve(addr, o)
}

func (c cross) Dial(ctx context.Context, addr string, o peer.Options) (peer.Conn, error) {
	return c.client.Dial(ctx, addr, o)
}

// Secure implements peer.Secure.
func (c cross) Secure() bool { return peer.CanTLS(c.client) && peer.CanTLS(c.server) }
