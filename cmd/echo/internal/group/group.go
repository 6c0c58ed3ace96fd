// Package group runs goroutines that work on one task: the first that fails ends all.
package group

import (
	"context"
	"sync"
)

// A Group is the goroutines of one task.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// New returns a group. ctx bounds it too.
func New(ctx context.Context) *Group {
	g := &Group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context ends when a goroutine of the group has failed, with that error as its cause. A
// stream that is opened with it ends then, which wakes every goroutine that waits on one.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs f in a goroutine.
func (g *Group) Go(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.cancel(err)
		}
	})
}

// Wait returns the first error, or the cause of the end of New's ctx, when all goroutines
// have returned. The group is over then.
func (g *Group) Wait() error {
	g.wg.Wait()
	defer g.cancel(nil)
	return context.Cause(g.ctx)
}
