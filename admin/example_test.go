package admin_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/fleet"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// The pages of a server, at a port of their own on this machine. Nobody else can reach them,
// and without a token they change nothing.
func ExampleHandler_Serve() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pages, err := admin.NewHandler(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: pages}) // for /closed and /methods
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	pages.AddServer("shop", srv)
	ln, err := admin.Listen(ctx, ":0") // a program takes a port that is known, such as ":9091"
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- pages.Serve(ctx, ln) }()

	resp, err := http.Get("http://" + ln.Addr().String() + "/readyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	fmt.Println(resp.Status)
	cancel()
	fmt.Println(<-served)
	// Output:
	// 200 OK
	// <nil>
}

// A client of many servers is shown with the state of each endpoint.
func ExampleHandler_AddFleet() {
	pages, err := admin.NewHandler(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	shops, err := fleet.NewClient("list://10.0.0.1:7000", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shops.Close()
	pages.AddFleet("shops", shops)
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/fleets", nil))
	fmt.Println(w.Code, strings.Contains(w.Body.String(), "list://10.0.0.1:7000"))
	// Output: 200 true
}

// A Handler can be a part of a program's own HTTP server. Here its text says which stream waits,
// and for what.
func ExampleHandler() {
	level := new(slog.LevelVar) // of the program's logger
	pages, err := admin.NewHandler(&admin.Options{
		Token:   "read from a file, in a program",
		Private: true, // this server is not on 127.0.0.1
		Hosts:   []string{"shop.internal"},
		Level:   level,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/ops/", http.StripPrefix("/ops", pages))

	srv := testkit.ExampleServer() // kernel.NewServer, in a program
	offers := srv.Offers()
	client, stop := testkit.StartExample(srv, nil)
	defer stop()
	pages.AddClient("warehouse", client)
	s, err := client.Open(context.Background(), "Stock/Watch", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := (<-offers).Accept(pool.Message{}, nil); err != nil { // and never read
		fmt.Println(err)
		return
	}
	for err == nil {
		err = s.TrySend(pool.MessageOf(make([]byte, 1000)))
	}

	r := httptest.NewRequest(http.MethodGet, "https://shop.internal/ops/streams", nil)
	r.SetBasicAuth("ann", "read from a file, in a program")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.Contains(w.Body.String(), "Stock/Watch"))
	pages.Remove("warehouse")
	// Output: 200 true
}
