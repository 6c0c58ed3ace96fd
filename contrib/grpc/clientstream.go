package sluicegrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcmd "google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A clientStream is a streaming RPC at the client. It implements grpc.ClientStream. Waiting needs
// no contexts, for the RPC's own ends the kernel's stream; and it needs no goroutine.
type clientStream struct {
	r    *clientRPC
	s    *kernel.Stream
	desc *grpc.StreamDesc

	sentLast bool // the sender's

	head      sync.Once // for what follows, which the acceptance brings
	header    metadata.MD
	accepted  bool
	headerErr error
	first     pool.Message // a reply beside the acceptance; the receiver takes it

	mu       sync.Mutex
	finished bool
	endErr   error       // what RecvMsg has returned; io.EOF: in order
	unwatch  func() bool // nil: the context is not watched
}

// open opens the stream of an RPC.
func (r *clientRPC) open(desc *grpc.StreamDesc) (*clientStream, error) {
	s, err := r.cc.c.Open(r.ctx, r.name, &kernel.OpenOptions{
		Metadata: r.md, WaitForReady: r.o.waitForReady,
		Stream: kernel.StreamOptions{MaxReceive: r.o.maxReceive, MaxSend: r.o.maxSend, Compression: r.o.compression},
	})
	if err != nil {
		return nil, openError(r.ctx, err)
	}
	r.sent, r.conn, r.md = true, s.Conn(), nil
	cs := &clientStream{r: r, s: s, desc: desc}
	if !r.begun.IsZero() {
		r.md = s.Metadata()
		r.tellSent()
		r.md = nil
	}
	if !r.begun.IsZero() || len(r.o.onFinish) > 0 {
		// Somebody must be told of the end, also if nobody receives any more.
		cs.mu.Lock()
		cs.unwatch = context.AfterFunc(r.ctx, cs.contextEnded)
		cs.mu.Unlock()
	}
	return cs, nil
}

// contextEnded ends the RPC with its context, in a goroutine that nobody of the program's has
// begun: where a stats handler or grpc.OnFinish panics there, that is logged.
func (cs *clientStream) contextEnded() {
	returned := false
	defer func() {
		if p := recover(); !returned {
			if p == nil {
				p = "runtime.Goexit"
			}
			c := cs.s.Conn()
			c.Logger().Error("sluice: hook panicked", "hook", "stats.Handler, grpc.OnFinish", "peer", c.Peer().Addr,
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	cs.finish(grpcstatus.FromContextError(cs.r.ctx.Err()).Err())
	returned = true
}

// left ends the RPC if the function that defers it has not returned: a stats handler has panicked, or
// something of the program's has ended the goroutine. The message at hand is lost, and what comes
// behind it must not look like all that there was.
func (cs *clientStream) left(returned *bool) {
	if !*returned {
		cs.finish(errLeft)
	}
}

var errLeft = grpcstatus.Error(codes.Internal, "a stats handler panicked, or a codec or stats handler called runtime.Goexit")

// Context implements grpc.ClientStream.
func (cs *clientStream) Context() context.Context { return cs.s.Context() }

// Header implements grpc.ClientStream.
func (cs *clientStream) Header() (grpcmd.MD, error) {
	cs.waitHeader()
	switch {
	case cs.accepted:
		return grpcMD(cs.header), nil
	case errors.Is(cs.headerErr, kernel.ErrRefused):
		return nil, nil // the status comes from RecvMsg
	}
	err := rpcError(cs.headerErr)
	cs.finish(err)
	return nil, err
}

// waitHeader waits until the stream is accepted, or over.
func (cs *clientStream) waitHeader() {
	cs.head.Do(func() {
		cs.first, cs.header, cs.headerErr = cs.s.Accepted(context.Background())
		cs.accepted = cs.headerErr == nil
		if cs.accepted && cs.r.asks() {
			cs.r.header = grpcMD(cs.header)
			cs.r.tellHeader()
		}
	})
}

// Trailer implements grpc.ClientStream.
func (cs *clientStream) Trailer() grpcmd.MD { return grpcMD(trailerOf(cs.s.Trailer(), cs.s.Err())) }

// trailerOf is the trailer of an RPC that has ended with err: where that is a failure it can be
// in the error.
func trailerOf(trailer metadata.MD, err error) metadata.MD {
	var se *status.StreamError
	if len(trailer) == 0 && errors.As(err, &se) {
		return se.Details
	}
	return trailer
}

// SendMsg implements grpc.ClientStream.
func (cs *clientStream) SendMsg(v any) error {
	returned := false
	defer cs.left(&returned)
	err := cs.send(v)
	returned = true
	return err
}

func (cs *clientStream) send(v any) error {
	if cs.sentLast {
		return grpcstatus.Error(codes.Internal, "a message behind the end of the requests")
	}
	m, err := cs.r.o.codec.marshal(v)
	if err != nil {
		logPanic(cs.s.Conn(), cs.r.name, err)
		cs.finish(err)
		return err
	}
	n := m.Len()
	if err := cs.s.Send(context.Background(), m); err != nil {
		m.Release()
		return cs.sendFailed(err)
	}
	if !cs.r.begun.IsZero() {
		cs.r.tell(outPayload(true, v, n))
	}
	if !cs.desc.ClientStreams {
		_ = cs.CloseSend()
	}
	return nil
}

// sendFailed is what SendMsg returns. Why a stream is over RecvMsg tells.
func (cs *clientStream) sendFailed(err error) error {
	switch {
	case errors.Is(err, kernel.ErrTooLarge) || errors.Is(err, kernel.ErrNotSupported):
		err = rpcError(err)
		cs.finish(err)
		return err
	case cs.desc.ClientStreams:
		return io.EOF
	}
	return nil // generated code calls RecvMsg next
}

// CloseSend implements grpc.ClientStream.
func (cs *clientStream) CloseSend() error {
	cs.sentLast = true
	err := cs.s.CloseSend()
	if errors.Is(err, kernel.ErrNotSupported) && cs.desc.ClientStreams {
		cs.finish(rpcError(err)) // the server waits for the end, which can't be said
	}
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (cs *clientStream) RecvMsg(v any) error {
	returned := false
	defer cs.left(&returned)
	err := cs.next(v)
	returned = true
	return err
}

func (cs *clientStream) next(v any) error {
	cs.waitHeader()
	m, err := cs.receive()
	if err == io.EOF && !cs.desc.ServerStreams {
		err = grpcstatus.Error(codes.Unimplemented, "no response for a method that has one")
	}
	if err != nil {
		return cs.finish(err)
	}
	n := m.Len()
	if err := cs.r.o.codec.unmarshal(m, v); err != nil {
		logPanic(cs.s.Conn(), cs.r.name, err)
		return cs.finish(err)
	}
	if !cs.r.begun.IsZero() {
		cs.r.tell(inPayload(true, v, n))
	}
	if cs.desc.ServerStreams {
		return nil
	}
	return cs.onlyOne()
}

// receive receives the next response.
func (cs *clientStream) receive() (pool.Message, error) {
	if m := cs.first; !m.IsZero() {
		cs.first = pool.Message{}
		return m, nil
	}
	m, err := cs.s.Receive(context.Background())
	if err == nil || errors.Is(err, io.EOF) {
		return m, err
	}
	if e := cs.s.Err(); e != nil {
		err = e
	}
	return m, rpcError(err)
}

// onlyOne waits for the end behind the one response of a method that has one.
func (cs *clientStream) onlyOne() error {
	m, err := cs.receive()
	if err == io.EOF {
		cs.finish(io.EOF)
		return nil
	}
	if err == nil {
		m.Release()
		err = grpcstatus.Error(codes.Unimplemented, "more than one response for a method that has one")
	}
	return cs.finish(err)
}

// finish ends the RPC, the first time that it is called, and returns what it has ended with:
// io.EOF if that is in order.
func (cs *clientStream) finish(err error) error {
	cs.mu.Lock()
	if cs.finished {
		defer cs.mu.Unlock()
		return cs.endErr
	}
	cs.finished, cs.endErr = true, err
	unwatch := cs.unwatch
	cs.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if err == io.EOF {
		_ = cs.s.CloseSend()
		err = nil
	} else {
		cs.s.Abort(status.Cancelled, "the call has failed")
		cs.discard()
	}
	if cs.r.asks() {
		cs.waitHeader() // which does not wait: the stream is over
		cs.r.tail = cs.Trailer()
	}
	cs.r.end(err)
	return cs.endErr
}

// discard releases what has come of a stream that was aborted.
func (cs *clientStream) discard() {
	for {
		m, err := cs.s.Receive(context.Background())
		if err != nil {
			return
		}
		m.Release()
	}
}
