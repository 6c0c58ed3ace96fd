package interop

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

// A stream belongs to a connection of its own client's: who guesses the ID of another's, or
// knows it, can't take that one's streams.
func TestSeastarStreamsBelongToTheirClient(t *testing.T) {
	srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(testkit.QuietServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{native.Protocol{}, &seastar.Protocol{}},
	})))
	ln := testkit.Listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() {
		ok(t, srv.Close())
		<-served
	}()
	dial := func(from string, hello []byte) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		nc := testkit.Must[net.Conn](t)(d.Dial("tcp", ln.Addr().String()))
		ok(t, nc.SetDeadline(time.Now().Add(testkit.Patience)))
		ok(t, second(nc.Write(hello)))
		return nc
	}
	taken := func(nc net.Conn) bool {
		defer nc.Close()
		n, _ := io.ReadFull(nc, make([]byte, 12))
		return n > 0
	}

	parent := dial("127.0.0.1", rawHello())
	defer parent.Close()
	id := readRawHello(t, parent)[rawConnectionID]
	for n := range uint64(1100) {
		if taken(dial("127.0.0.2", rawHello(rawStreamParent, rawID((n+1)<<16)))) {
			t.Fatalf("a stream of connection %#x, which was guessed", (n+1)<<16)
		}
	}
	if taken(dial("127.0.0.2", rawHello(rawStreamParent, id))) {
		t.Error("a stream of another client's connection")
	}
	if taken(dial("127.0.0.1", rawHello(rawStreamParent, id, rawIsolation, "other"))) {
		t.Error("a stream of a connection with another cookie")
	}
	if !taken(dial("127.0.0.1", rawHello(rawStreamParent, id))) {
		t.Error("its own client can't have a stream")
	}
}
