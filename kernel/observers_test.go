package kernel_test

import (
	"runtime"
	"slices"
	"testing"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// Of several Observers each is told of everything, in their order, whatever the others do.
func TestObservers(t *testing.T) {
	first, last := newWatcher(), newWatcher()
	var calls []string
	note := func(name string) func() { return func() { calls = append(calls, name) } }
	first.hook, last.hook = note("first"), note("last")
	bad := []func(){func() { panic("no") }, runtime.Goexit}
	n := 0
	wrong := hooked{func() {
		note("wrong")()
		n++
		bad[n%len(bad)]()
	}}
	all := kernel.Observers(nil, first, nil, wrong, last)
	w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Observer: all}, nil)
	a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	a.Abort(status.Cancelled, "over")
	w.WantDone(b)
	_ = w.Client.Close()
	_ = w.Srv.Close() // waits until they are told
	for _, o := range []*watcher{first, last} {
		o.settled(t)
		if o.only(t, b).Code != status.Cancelled || len(o.conns) != 1 {
			t.Errorf("told of %d connections, and %+v", len(o.conns), o.only(t, b))
		}
	}
	want := slices.Repeat([]string{"first", "wrong", "last"}, 4)
	if !slices.Equal(calls, want) {
		t.Errorf("called %v, want %v", calls, want)
	}
	if panics := w.Srv.Stats().Panics; panics != 4 {
		t.Errorf("%d panics counted, want 4", panics)
	}
}

// One Observer costs no more than by itself, and none is none.
func TestObserversOfOneAndNone(t *testing.T) {
	one := newWatcher()
	if got := kernel.Observers(nil, one); got != kernel.Observer(one) {
		t.Errorf("of one: %T", got)
	}
	if got := kernel.Observers(nil, nil); got != nil {
		t.Errorf("of none: %T", got)
	}
	list, ok := kernel.Observers(one, hooked{}).(interface{ Unwrap() []kernel.Observer })
	if !ok || len(list.Unwrap()) != 2 {
		t.Error("of two: they can't be listed")
	}
}

// A hooked is an Observer that calls a function.
type hooked struct{ f func() }

func (o hooked) ConnBegun(*kernel.Conn)                        { o.f() }
func (o hooked) ConnEnded(*kernel.Conn, kernel.ConnInfo)       { o.f() }
func (o hooked) StreamBegun(*kernel.Stream)                    { o.f() }
func (o hooked) StreamEnded(*kernel.Stream, kernel.StreamInfo) { o.f() }
