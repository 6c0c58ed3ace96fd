package kernel_test

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
)

// Who stands still, and because of whom? The client's stream waits until the server's
// application reads.
func ExampleStream_Snapshot() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "stuck", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := (<-offers).Accept(kernel.Message{}, nil); err != nil { // and never read
		fmt.Println(err)
		return
	}
	go func() { // sends until there is no credit
		for {
			m := kernel.NewMessage(1 << 10)
			if err := s.Send(ctx, m); err != nil {
				m.Release()
				return
			}
		}
	}()
	report := func(side string, conns []*kernel.Conn, on kernel.BlockedOn) {
		for {
			for _, c := range conns {
				for s := range c.EachStream {
					if i := s.Snapshot(); i.BlockedOn == on {
						fmt.Printf("%s: stream %d (%s) is blocked on its %s\n", side, i.ID, i.Method, i.BlockedOn)
						return
					}
				}
			}
		}
	}
	report("client", client.Conns(), kernel.BlockedOnStreamCredit)
	report("server", srv.Conns(), kernel.BlockedOnReader)
	// Output:
	// client: stream 1 (stuck) is blocked on its stream credit
	// server: stream 1 (stuck) is blocked on its reader
}
