package kerneltest_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// A program that imports package kernel and has opened nothing, or has closed it, leaves
// nothing that goleak finds with the options; without them it finds something, or they are
// not needed any more.
func TestLeakOptions(t *testing.T) {
	time.Sleep(10 * time.Millisecond) // the pool's goroutines may not have got there yet
	if goleak.Find() == nil {
		t.Error("nothing runs that must be ignored: the options are not needed any more")
	}
	if err := goleak.Find(kerneltest.LeakOptions()...); err != nil {
		t.Errorf("nothing was opened: %v", err)
	}
	srv, err := kernel.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := kernel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	client, err := kernel.Dial(t.Context(), ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if goleak.Find(kerneltest.LeakOptions()...) == nil {
		t.Error("a server and a client run, and are not found")
	}
	_ = client.Close()
	_ = srv.Close()
	<-served
	if err := goleak.Find(kerneltest.LeakOptions()...); err != nil {
		t.Errorf("all was closed: %v", err)
	}
}
