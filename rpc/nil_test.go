package rpc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/rpc"
)

// A handler that is not there is heard of when it is registered.
func TestNilHandlersPanic(t *testing.T) {
	srv := testkit.Must[*kernel.Server](t)(kernel.NewServer(nil))
	for name, register := range map[string]func(){
		"Register":           func() { _ = rpc.HandleUnary[string, string](srv, "m", nil, nil) },
		"HandleBidi":         func() { _ = rpc.HandleBidi[string, string](srv, "m", nil, nil) },
		"HandleClientStream": func() { _ = rpc.HandleClientStream[string, string](srv, "m", nil, nil) },
		"HandleServerStream": func() { _ = rpc.HandleServerStream[string, string](srv, "m", nil, nil) },
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
