package sluicegrpc

import (
	"context"

	"google.golang.org/grpc"
)

// The chains of interceptors: the first is the outermost, and nil is none.

func chainUnaryServer(is []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	switch len(is) {
	case 0:
		return nil
	case 1:
		return is[0]
	}
	first, rest := is[0], chainUnaryServer(is[1:])
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		return first(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return rest(ctx, req, info, h)
		})
	}
}

func chainStreamServer(is []grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	switch len(is) {
	case 0:
		return nil
	case 1:
		return is[0]
	}
	first, rest := is[0], chainStreamServer(is[1:])
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return first(srv, ss, info, func(srv any, ss grpc.ServerStream) error {
			return rest(srv, ss, info, h)
		})
	}
}

func chainUnaryClient(is []grpc.UnaryClientInterceptor) grpc.UnaryClientInterceptor {
	switch len(is) {
	case 0:
		return nil
	case 1:
		return is[0]
	}
	first, rest := is[0], chainUnaryClient(is[1:])
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, last grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		next := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
			return rest(ctx, method, req, reply, cc, last, opts...)
		}
		return first(ctx, method, req, reply, cc, next, opts...)
	}
}

func chainStreamClient(is []grpc.StreamClientInterceptor) grpc.StreamClientInterceptor {
	switch len(is) {
	case 0:
		return nil
	case 1:
		return is[0]
	}
	first, rest := is[0], chainStreamClient(is[1:])
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, last grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		next := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return rest(ctx, desc, cc, method, last, opts...)
		}
		return first(ctx, desc, cc, method, next, opts...)
	}
}
