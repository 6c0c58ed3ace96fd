package kernel_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
)

// A handler that is not there is heard of when it is registered.
func TestNilHandlersPanic(t *testing.T) {
	srv := must[*kernel.Server](t)(kernel.NewServer(nil))
	type handler = func(ctx context.Context, s *kernel.Stream) error
	for name, register := range map[string]func(){
		"Handle":      func() { srv.Handle("m", nil) },
		"HandleOffer": func() { srv.HandleOffer("m", nil) },
		"a client's": func() {
			_, _ = kernel.NewClient("host:1", &kernel.ClientOptions{Handlers: map[string]handler{"m": nil}})
		},
	} {
		if got := panicOf(register); !strings.Contains(got, `nil handler for "m"`) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func panicOf(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return ""
}
