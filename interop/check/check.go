// Package check runs the checks that clients of ours make of the servers of others.
package check

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sluicerpc/sluice/kernel"
)

// A Case is one check of a server.
type Case struct {
	Name string
	Run  func(ctx context.Context, c *kernel.Client) error
}

// limit is how long one case may take.
const limit = 30 * time.Second

// Run runs cases one after another, and writes a line for each: its name, and "ok" or what is
// wrong.
func Run(ctx context.Context, c *kernel.Client, cases []Case, w io.Writer) error {
	failed := 0
	for _, x := range cases {
		result := "ok"
		if err := x.run(ctx, c); err != nil {
			failed++
			result = err.Error()
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", x.Name, result); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d failed", failed, len(cases))
	}
	return nil
}

func (x Case) run(ctx context.Context, c *kernel.Client) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return x.Run(ctx, c)
}

// Equal is an error if got is not what was to come.
func Equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, not %v", what, got, want)
	}
	return nil
}
