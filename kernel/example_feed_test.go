package kernel_test

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/kernel"
)

// A program can feed a channel of its own from a stream, here with lines of text. Feed
// tells when there may be no reader any more.
func ExampleStream_Feed() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("lines", func(ctx context.Context, s *kernel.Stream) error {
		for _, line := range []string{"one", "two"} {
			if err := s.Send(ctx, say(line)); err != nil {
				return err
			}
		}
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "lines", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	lines := make(chan string)
	go s.Feed(func(done <-chan struct{}) {
		defer close(lines)
		for m, err := range s.All(ctx) {
			if err != nil {
				return
			}
			line := string(m.Bytes())
			m.Release()
			select {
			case lines <- line:
			case <-done:
				return
			}
		}
	})
	for line := range lines {
		fmt.Println(line)
	}
	fmt.Println(s.Err())
	// Output:
	// one
	// two
	// <nil>
}
