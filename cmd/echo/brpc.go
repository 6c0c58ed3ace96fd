package main

import (
	"context"
	"errors"
	"sync"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// methodBRPC is the service of brpc's own examples (example/echo_c++,
// streaming_echo_c++, streaming_batch_echo_c++): their clients can talk to this
// server, and this client to their servers.
const methodBRPC = "example.EchoService/Echo"

// echoExample answers it: a call is answered with its request, and each stream that a
// call opens gets its messages back. A brpc client waits for the answer before it writes,
// and expects a message in it.
func echoExample(ctx context.Context, o *kernel.Offer) error {
	if o.Unary() {
		s, err := o.Accept(pool.Message{}, nil)
		if err != nil {
			return err
		}
		if err := echo(ctx, s); err != nil {
			return err
		}
		return s.CloseSend()
	}
	streams, err := o.AcceptAll(exampleMessage("Accepted stream"), nil)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(streams))
	for i, s := range streams {
		wg.Go(func() {
			if errs[i] = echo(s.Context(), s); errs[i] == nil {
				errs[i] = s.Close(ctx)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// exampleMessage is the examples' EchoRequest and EchoResponse, a protobuf message
// whose field 1 is a string. Programs with more to say use rpc/protocodec.
func exampleMessage(text string) pool.Message {
	const field1String = 1<<3 | 2
	return pool.MessageOf(append([]byte{field1String, byte(len(text))}, text...))
}
