package kernel_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Request gives the request of a call, and that of an open, in the same way. The header can
// still be set then: it goes with the reply.
func ExampleStream_Request() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("length", func(ctx context.Context, s *kernel.Stream) error {
		request, err := s.Request(ctx)
		if err != nil {
			return err
		}
		defer request.Release()
		if request.Len() == 0 {
			return &status.HandlerError{Code: status.InvalidArgument, Reason: "nothing to measure"}
		}
		if err := s.SetHeader(metadata.MD{{Key: "unit", Value: "bytes"}}); err != nil {
			return err
		}
		return s.Send(ctx, say(strconv.Itoa(request.Len())))
	})
	client, stop := start(srv, nil)
	defer stop()

	var header metadata.MD
	reply, err := client.Call(ctx, "length", say("a call"), &kernel.CallOptions{Header: &header})
	fmt.Printf("%s %s, %v\n", reply.Bytes(), header.Get("unit"), err)

	s, err := client.Open(ctx, "length", &kernel.OpenOptions{Request: say("an open")})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, header, _ = s.Accepted(ctx)
	reply, err = s.Receive(ctx)
	fmt.Printf("%s %s, %v\n", reply.Bytes(), header.Get("unit"), err)
	// Output:
	// 6 bytes, <nil>
	// 7 bytes, <nil>
}

// OnlyRequest is for a method that takes one message: a caller that sends another is told.
func ExampleStream_OnlyRequest() {
	ctx := context.Background()
	srv := newServer()
	srv.Handle("wait", func(ctx context.Context, s *kernel.Stream) error {
		request, err := s.OnlyRequest(ctx)
		if err != nil {
			return err
		}
		request.Release()
		<-ctx.Done() // of the call
		return nil
	})
	client, stop := start(srv, nil)
	defer stop()

	s, err := client.Open(ctx, "wait", &kernel.OpenOptions{Request: say("one")})
	if err == nil {
		err = s.Send(ctx, say("two"))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = s.Receive(ctx)
	fmt.Println(status.Of(err))
	// Output:
	// UNIMPLEMENTED more than one request
}

// A message and its attachment are one message, the attachment at its end. Its size travels
// in the metadata of a request and in the header of a reply, and over brpc it is brpc's own
// attachment.
func Example_attachment() {
	ctx := context.Background()
	brpc := []frame.Protocol{strm.Protocol{}}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Protocols: brpc, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	srv.Handle("pictures.Store/Put", func(ctx context.Context, s *kernel.Stream) error {
		request, err := s.Request(ctx)
		if err != nil {
			return err
		}
		message, picture := detach(request, s.Metadata())
		fmt.Printf("the server gets %q and %q\n", message, picture)
		reply, header := attach("stored", "thumbnail")
		if err := s.SetHeader(header); err != nil {
			return err
		}
		return s.Send(ctx, reply)
	})
	client, stop := testkit.StartExample(srv, &kernel.ClientOptions{Protocols: brpc})
	defer stop()

	request, size := attach("put", "picture")
	var header metadata.MD
	reply, err := client.Call(ctx, "pictures.Store/Put", request, &kernel.CallOptions{Metadata: size, Header: &header})
	if err != nil {
		fmt.Println(err)
		return
	}
	message, thumbnail := detach(reply, header)
	fmt.Printf("the client gets %q and %q\n", message, thumbnail)
	// Output:
	// the server gets "put" and "picture"
	// the client gets "stored" and "thumbnail"
}

// attach makes one message, and the metadata that goes with it.
func attach(message, attachment string) (pool.Message, metadata.MD) {
	return say(message + attachment), metadata.MD{{Key: strm.KeyAttachmentSize, Value: strconv.Itoa(len(attachment))}}
}

// detach undoes attach. A message without the key has no attachment.
func detach(m pool.Message, md metadata.MD) (message, attachment []byte) {
	n, _ := strconv.Atoi(md.Get(strm.KeyAttachmentSize))
	p := m.Bytes()
	n = min(max(n, 0), len(p)) // the peer says it
	return p[:len(p)-n], p[len(p)-n:]
}
