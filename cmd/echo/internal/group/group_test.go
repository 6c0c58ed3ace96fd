package group

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestTheFirstErrorEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := errors.New("first")
		g := New(t.Context())
		for range 3 {
			g.Go(func() error {
				<-g.Context().Done()
				return g.Context().Err()
			})
		}
		g.Go(func() error {
			g.Go(func() error { return first })
			return nil
		})
		if err := g.Wait(); !errors.Is(err, first) {
			t.Errorf("error %v", err)
		}
	})
}

func TestWithoutAnErrorItGoesOn(t *testing.T) {
	g := New(t.Context())
	g.Go(func() error { return nil })
	g.Go(func() error { return g.Context().Err() })
	if err := g.Wait(); err != nil || g.Context().Err() == nil {
		t.Errorf("error %v; the context afterwards: %v", err, g.Context().Err())
	}
}

func TestItEndsWithTheContextItHas(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	g := New(ctx)
	g.Go(func() error {
		<-g.Context().Done()
		return nil
	})
	cancel(why)
	if err := g.Wait(); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}
