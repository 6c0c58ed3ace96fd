// Package migrating holds the code of other libraries that docs/migrating-from.md shows: it
// compiles.
package migrating

import (
	"context"
	"errors"
	"io"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/benchmarks/migrating/pb"
)

var _ = []any{orders{}, readOrder, watchOrder, syncOrders, logged}

type orders struct{}

func (orders) Get(_ context.Context, r *pb.GetRequest) (*pb.Order, error) {
	if r.Id == "" {
		return nil, status.Error(codes.InvalidArgument, "no id")
	}
	return &pb.Order{Id: r.Id}, nil
}

func (orders) Watch(r *pb.GetRequest, s grpc.ServerStreamingServer[pb.Order]) error {
	for v := range int32(3) {
		if err := s.Send(&pb.Order{Id: r.Id, Version: v}); err != nil {
			return err
		}
	}
	return nil
}

func (orders) Sync(s grpc.BidiStreamingServer[pb.GetRequest, pb.Order]) error {
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&pb.Order{Id: r.Id}); err != nil {
			return err
		}
	}
}

func readOrder(ctx context.Context, c pb.OrdersClient, id string) (*pb.Order, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "user", "ada")
	o, err := c.Get(ctx, &pb.GetRequest{Id: id})
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	return o, err
}

func watchOrder(ctx context.Context, c pb.OrdersClient, id string, changed func(*pb.Order)) error {
	s, err := c.Watch(ctx, &pb.GetRequest{Id: id})
	if err != nil {
		return err
	}
	for {
		o, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		changed(o)
	}
}

func syncOrders(ctx context.Context, c pb.OrdersClient, ids []string, got func(*pb.Order)) error {
	s, err := c.Sync(ctx)
	if err != nil {
		return err
	}
	go func() {
		for _, id := range ids {
			if s.Send(&pb.GetRequest{Id: id}) != nil {
				return // Recv has the error
			}
		}
		_ = s.CloseSend()
	}()
	for {
		o, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		got(o)
	}
}

func logged(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	err := next(srv, s)
	log.Print(info.FullMethod, " ", status.Code(err))
	return err
}
