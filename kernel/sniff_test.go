package kernel_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// A client of another protocol is told by a FIN that nobody speaks it here. A reset looks like a
// fault of the network, and can overtake what the client has still to read.
func TestAnUnknownProtocolEndsInOrder(t *testing.T) {
	srv, _ := loops(t, quietServer(nil), nil)
	for name, hello := range map[string]string{
		"HTTP/1.1": "GET /index.html HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n",
		"HTTP/2":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", srv.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if _, err := io.WriteString(nc, hello); err != nil {
				t.Fatal(err)
			}
			_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := nc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes, %v, want the end", n, err)
			}
			// It goes on for a moment with what it had to say.
			if _, err := io.WriteString(nc, "and a body"); err != nil {
				t.Error(err)
			}
		})
	}
}
