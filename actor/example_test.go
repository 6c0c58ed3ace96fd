package actor_test

import (
	"context"
	"fmt"

	"github.com/sluicerpc/sluice/actor"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The server and the client of an example are in memory.
var (
	newServer = testkit.ExampleServer
	start     = testkit.StartExample
)

func say(s string) pool.Message { return pool.MessageOf([]byte(s)) }

// counter is a handler that sends as many messages as its request says.
func counter(ctx context.Context, s *kernel.Stream) error {
	request, err := s.Request(ctx)
	if err != nil {
		return err
	}
	defer request.Release()
	var n int
	if _, err := fmt.Sscan(string(request.Bytes()), &n); err != nil {
		return &status.HandlerError{Code: status.InvalidArgument, Reason: err.Error()}
	}
	for i := range n {
		if err := s.Send(ctx, say(fmt.Sprint(i))); err != nil {
			return err
		}
	}
	return nil
}

// Release of a batch releases its messages, except those that Keep took out.
func ExampleBatch() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("count", counter)
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "count", &kernel.OpenOptions{Request: say("100")})
	if err != nil {
		fmt.Println(err)
		return
	}
	var last pool.Message
	longest := func(b *actor.Batch) (n int) {
		for i := range b.Len() {
			n = max(n, b.At(i).Len()) // belongs to the batch
		}
		return n
	}
	most := 0
	for b := range s.Batches() {
		most = max(most, longest(b))
		last.Release()
		last = b.Keep(b.Len() - 1) // ours now
		b.Release()
	}
	fmt.Printf("%s, %d bytes at most, %v\n", last.Bytes(), most, s.Err())
	// Output: 99, 2 bytes at most, <nil>
}

// A nil channel switches a case of a select off: one message at most is held, and while it
// waits for a slot nothing is read. Cancel gives a slot back; after Send it does nothing.
func ExampleSlot() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
		var held pool.Message
		in, slots := s.In(), (<-chan actor.Slot)(nil)
		for {
			select {
			case m, ok := <-in:
				if !ok {
					return s.Err()
				}
				held, in, slots = m, nil, s.Writable()
			case slot, ok := <-slots:
				if !ok {
					return s.Err()
				}
				if err := slot.Send(held); err != nil {
					return err
				}
				in, slots = s.In(), nil
			}
		}
	})
	client, stop := start(srv, nil)
	defer stop()

	reply, err := client.Call(ctx, "echo", say("there and back"), nil)
	fmt.Printf("%s %v\n", reply.Bytes(), err)
	// Output: there and back <nil>
}

// A slot that is not needed after all goes back, and the next one is offered.
func ExampleSlot_Cancel() {
	ctx := context.Background()
	srv := newServer()
	offers := srv.Offers()
	client, stop := start(srv, nil)
	defer stop()
	s, err := client.Open(ctx, "any", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	<-offers

	sendFrom := func(queue *[]string) {
		slot := <-s.Writable()
		defer slot.Cancel() // does nothing after Send
		if len(*queue) == 0 {
			return
		}
		fmt.Println(slot.Send(say((*queue)[0])))
		*queue = (*queue)[1:]
	}
	queue := []string{"only one"}
	sendFrom(&queue)
	sendFrom(&queue)
	slot := <-s.Writable() // there is one again
	slot.Cancel()
	fmt.Println(len(queue))
	// Output:
	// <nil>
	// 0
}
