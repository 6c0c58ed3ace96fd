package interop

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/kernel"
)

// A Seastar server answers each request that is too large, however many there are.
func TestManyRequestsThatAreTooLargeAreAllAnswered(t *testing.T) {
	srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{&seastar.Protocol{}}, Limits: kernel.Limits{MaxMessage: 1 << 10},
	}))
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	defer func() {
		_ = srv.Close()
		<-served
	}()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	_, _ = nc.Write([]byte("SSTARRPC\x00\x00\x00\x00"))
	head := make([]byte, 12)
	if _, err := io.ReadFull(nc, head); err != nil {
		t.Fatal(err)
	}
	_, _ = io.CopyN(io.Discard, nc, int64(binary.LittleEndian.Uint32(head[8:])))
	for id := uint64(1); id <= 1100; id++ { // one after the other, each answer read
		b := binary.LittleEndian.AppendUint64(nil, 7)
		b = binary.LittleEndian.AppendUint64(b, id)
		b = binary.LittleEndian.AppendUint32(b, 2000)
		if _, err := nc.Write(append(b, make([]byte, 2000)...)); err != nil {
			t.Fatalf("request %d: %v", id, err)
		}
		if _, err := io.ReadFull(nc, head); err != nil {
			t.Fatalf("answer %d: %v", id, err)
		}
		_, _ = io.CopyN(io.Discard, nc, int64(binary.LittleEndian.Uint32(head[8:])))
	}
}
