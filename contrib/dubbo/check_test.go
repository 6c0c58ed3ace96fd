package dubbo_test

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/sluicerpc/sluice/contrib/dubbo"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// A service that has a version or a group takes calls that name it, and one without takes any.
func TestCheck(t *testing.T) {
	check := dubbo.Check(
		dubbo.Service{Interface: "any"},
		dubbo.Service{Interface: "versioned", Version: "1.0.0"},
		dubbo.Service{Interface: "grouped", Group: "test"},
		dubbo.Service{Interface: "both", Version: "1.0.0", Group: "test"},
		dubbo.Service{Interface: "two", Version: "1.0.0"}, dubbo.Service{Interface: "two", Version: "2.0.0", Group: "test"},
	)
	for _, tc := range []struct {
		method, version, group string
		served                 bool
	}{
		{"any/m", "", "", true}, {"any/m", "1.0.0", "test", true}, {"any/m", "dubbo-rust/0.1.0", "cluster", true},
		{"versioned/m", "", "", false}, {"versioned/m", "1.0.0", "", true}, {"versioned/m", "1.0.0", "x", true}, {"versioned/m", "1.0.1", "", false},
		{"grouped/m", "", "", false}, {"grouped/m", "7", "test", true}, {"grouped/m", "", "tes", false},
		{"both/m", "1.0.0", "test", true}, {"both/m", "1.0.0", "", false}, {"both/m", "", "test", false}, {"both/m", "dubbo-rust/0.1.0", "cluster", false},
		{"two/m", "1.0.0", "", true}, {"two/m", "2.0.0", "", false}, {"two/m", "2.0.0", "test", true}, {"two/m", "3.0.0", "test", false},
		{"unknown/m", "", "", true}, {"unknown/m", "1", "g", true}, {"both", "", "", true}, {"", "", "", true},
	} {
		var md metadata.MD
		if tc.version != "" {
			md = append(md, metadata.Field{Key: "tri-service-version", Value: tc.version})
		}
		if tc.group != "" {
			md = append(md, metadata.Field{Key: "tri-service-group", Value: tc.group})
		}
		err := check(t.Context(), nil, tc.method, md)
		if (err == nil) != tc.served {
			t.Errorf("%v: %v", tc, err)
		}
		var he *status.HandlerError
		if err != nil && (!errors.As(err, &he) || he.Code != status.Unimplemented) {
			t.Errorf("%v: %v", tc, err)
		}
	}
}

// The check serves a server that is not of this package, and a client's Reference passes it.
func TestCheckOfAnotherServer(t *testing.T) {
	srv, err := kernel.NewServer(&kernel.ServerOptions{
		Protocols: []frame.Protocol{triple.Protocol{}}, Handlers: handlers(t), Logger: slog.New(slog.DiscardHandler),
		Authorize: dubbo.Check(dubbo.Service{Interface: greeter, Version: "1.0.0", Group: "test"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	c := dial(t, "triple://"+ln.Addr().String())
	wantRefused(t, c)
	wantRefused(t, dubbo.Reference{Version: "1.0.0"}.Caller(c))
	wantRefused(t, dubbo.Reference{Version: "1.0.0", Group: "another"}.Caller(c))
	wantGreetings(t, dubbo.Reference{Version: "1.0.0", Group: "test"}.Caller(c))
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, kernel.ErrServerClosed) {
		t.Error(err)
	}
}
