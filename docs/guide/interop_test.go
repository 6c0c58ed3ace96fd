package guide_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

func servesThreeProtocols() (*kernel.Server, error) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{native.Protocol{}, strm.Protocol{}, &seastar.Protocol{}},
	})
	return srv, err
}

func dialsBrpc(ctx context.Context) (*kernel.Client, error) {
	c, err := kernel.Dial(ctx, "brpc://10.0.0.7:8000", &kernel.ClientOptions{
		Protocols: []frame.Protocol{strm.Protocol{}},
	})
	return c, err
}

func TestProtocolsAreOptions(t *testing.T) {
	srv, err := servesThreeProtocols()
	testkit.OK(t, err)
	testkit.OK(t, srv.Close())
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := dialsBrpc(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want only the time to be over", err)
	}
}
