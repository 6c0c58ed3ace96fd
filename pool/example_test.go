package pool_test

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// The server and the client of an example are in memory.
var (
	newServer = testkit.ExampleServer
	start     = testkit.StartExample
)

func say(s string) pool.Message { return pool.MessageOf([]byte(s)) }

// A message has one owner. MessageOf makes one of bytes that exist, without a copy;
// CopyMessage copies them; NewMessage has memory from a pool, to be filled.
func ExampleMessage() {
	m := pool.New(8)
	n := copy(m.Bytes(), "hello")
	m.Truncate(n)
	fmt.Printf("%q, %d bytes\n", m.Bytes(), m.Len())

	buffer := []byte("from a buffer that is used again")
	c := pool.Copy(buffer)
	clear(buffer)
	fmt.Printf("%q\n", c.Bytes())

	kept := m.Clone() // shares no memory with m
	m.Release()       // optional: the garbage collector would free it
	fmt.Printf("%q\n", kept.Bytes())

	fmt.Println(pool.Message{}.IsZero(), pool.MessageOf(nil).IsZero(), pool.MessageOf([]byte{0}).IsZero())
	fmt.Println(pool.MaxLen>>20, "MiB at most")

	pool.Forget(kept) // another goroutine may still read the bytes: nobody uses the memory again before that
	// Output:
	// "hello", 5 bytes
	// "from a buffer that is used again"
	// "hello"
	// true false false
	// 1024 MiB at most
}

// Share makes one more handle of the same bytes, so that one message can be sent on several
// streams without a copy. Every handle is sent or released once.
func ExampleMessage_Share() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("listen", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		return s.Send(ctx, m)
	})
	client, stop := start(srv, nil)
	defer stop()

	var streams []*kernel.Stream
	for range 3 {
		s, err := client.Open(ctx, "listen", nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		streams = append(streams, s)
	}
	news := say("news for all")
	for _, s := range streams {
		handle := news.Share()
		if err := s.Send(ctx, handle); err != nil {
			handle.Release() // a failed Send takes nothing over
		}
	}
	news.Release()
	for _, s := range streams {
		m, err := s.Receive(ctx)
		fmt.Printf("%s %v\n", m.Bytes(), err)
	}
	// Output:
	// news for all <nil>
	// news for all <nil>
	// news for all <nil>
}

// Zstd is for peers that have it, Gzip for those that have nothing else. Without a choice of
// its own a message has that of its stream; what is compressed already chooses none.
func ExampleCompression() {
	for _, c := range []pool.Compression{pool.NoCompression, pool.Gzip, pool.Zstd} {
		fmt.Println(c)
	}
	picture := say("compressed already")
	picture.SetCompression(pool.NoCompression)
	fmt.Printf("%s\n", picture.Bytes()) // stay as they are for whoever has the message
	// Output:
	// none
	// gzip
	// zstd
	// compressed already
}
