package interop

import (
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

// A protocol that has no name in TLS needs none, on a port that serves one which has.
func TestBrpcUnderTLSHasNoName(t *testing.T) {
	w := newWorld(t, brpcOver(testkit.MutualTLS), nil, nil)
	w.Srv.Handle("a/b", echo)
	w.Call("a/b", "under TLS", "under TLS")
	for _, c := range append(w.Srv.Conns(), w.Client.Conns()...) {
		if st := c.Peer().TLS; st == nil || st.NegotiatedProtocol != "" {
			t.Errorf("negotiated: %+v", st)
		}
	}
	alone := func(so *kernel.ServerOptions, co *kernel.ClientOptions) {
		so.Protocols, co.Protocols = []frame.Protocol{strm.Protocol{}}, []frame.Protocol{strm.Protocol{}}
	}
	w = newWorld(t, func(t testing.TB, so *kernel.ServerOptions, co *kernel.ClientOptions) (*kernel.Server, *kernel.Client) {
		alone(so, co)
		return testkit.MutualTLS(t, so, co)
	}, nil, nil)
	w.Srv.Handle("a/b", echo)
	w.Call("a/b", "alone", "alone")
}
