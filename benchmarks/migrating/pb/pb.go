// Package pb has what protoc would generate for the service of docs/migrating-from.md, as far
// as the page uses it.
package pb

import (
	"context"

	"google.golang.org/grpc"
)

// GetRequest is a message.
type GetRequest struct{ Id string }

// Order is a message.
type Order struct {
	Id      string
	Version int32
}

// OrdersClient is the client of the service.
type OrdersClient interface {
	Get(ctx context.Context, in *GetRequest, opts ...grpc.CallOption) (*Order, error)
	Watch(ctx context.Context, in *GetRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[Order], error)
	Sync(ctx context.Context, opts ...grpc.CallOption) (grpc.BidiStreamingClient[GetRequest, Order], error)
}
