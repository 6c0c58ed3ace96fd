package sluicegrpc

import (
	"context"
	"time"

	"google.golang.org/grpc/stats"
)

// statsHandlers are told of the same events, in their order.
type statsHandlers []stats.Handler

func (hs statsHandlers) tag(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	for _, h := range hs {
		ctx = h.TagRPC(ctx, i)
	}
	return ctx
}

func (hs statsHandlers) tell(ctx context.Context, s stats.RPCStats) {
	for _, h := range hs {
		h.HandleRPC(ctx, s)
	}
}

// prefixLen is what gRPC writes before each message, bytes.
const prefixLen = 5

func inPayload(client bool, v any, n int) *stats.InPayload {
	return &stats.InPayload{Client: client, Payload: v, Length: n, CompressedLength: n, WireLength: n + prefixLen, RecvTime: time.Now()}
}

func outPayload(client bool, v any, n int) *stats.OutPayload {
	return &stats.OutPayload{Client: client, Payload: v, Length: n, CompressedLength: n, WireLength: n + prefixLen, SentTime: time.Now()}
}
