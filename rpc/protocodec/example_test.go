package protocodec_test

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/rpc/codec"
	"github.com/sluicerpc/sluice/rpc/protocodec"
)

// A program that imports this package carries protobuf messages without an option. Naming the
// encoding refuses all other types.
func ExampleEncoding() {
	ctx := context.Background()
	srv := testkit.ExampleServer()
	err := rpc.HandleUnary(srv, "greet", func(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		return wrapperspb.String("hello, " + name.GetValue()), nil
	}, &rpc.HandleOptions{Encoding: protocodec.Encoding})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, stop := testkit.StartExample(srv, nil)
	defer stop()

	reply, err := rpc.Call[*wrapperspb.StringValue](ctx, client, "greet", wrapperspb.String("Ada"), nil)
	fmt.Println(reply.GetValue(), err)

	mixed := codec.FirstOf(protocodec.Encoding, codec.Fixed) // messages in protobuf, structs in the fixed layout
	_, err = codec.CodecOf[struct{ X int32 }](mixed)
	fmt.Println(err)
	// Output:
	// hello, Ada <nil>
	// <nil>
}
