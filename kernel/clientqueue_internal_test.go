package kernel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Room that is made between an Open's look at the connections and its place in the queue is not
// missed: nobody would wake it.
func TestAnOpenLooksAgainBeforeItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient("memory:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := search{changes: c.changes}
		c.connsChanged()
		if err := c.wait(ctx, &s); err != nil {
			t.Error(err)
		}
	})
}
