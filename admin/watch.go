package admin

import (
	"sync"
	"time"
)

const (
	// pace is how often a page that is watched is renewed.
	pace = time.Second
	// share is the part of a processor that looking may take, one in so many: a look that
	// takes longer is made less often.
	share = 25
	// mostWatchers is how many pages can be watched at once.
	mostWatchers = 64
)

// A watch looks once a second for all who watch pages. Its goroutine runs while there are any.
type watch struct {
	h *Handler

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	quit     chan struct{} // closed when the last one goes; nil: the goroutine does not run
}

// A watcher is one page that is watched.
type watcher struct {
	lens  lens
	views chan *view // holds one: who is slow misses the older
}

// join begins to watch. It returns false if too many do.
func (w *watch) join(l lens) (*watcher, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.watchers) >= mostWatchers {
		return nil, false
	}
	k := &watcher{l, make(chan *view, 1)}
	w.watchers[k] = struct{}{}
	if w.quit == nil {
		w.quit = make(chan struct{})
		go w.run(w.quit)
	}
	return k, true
}

func (w *watch) leave(k *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watchers, k)
	if len(w.watchers) == 0 {
		close(w.quit)
		w.quit = nil
	}
}

// all returns who watches at this moment, and false if the goroutine with this quit has been
// told to end: another one may run then.
func (w *watch) all(quit chan struct{}) (ks []*watcher, ls []lens, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.watchers {
		ks, ls = append(ks, k), append(ls, k.lens)
	}
	return ks, ls, w.quit == quit
}

// run is the goroutine.
func (w *watch) run(quit chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return
		case <-timer.C:
		}
		ks, ls, ok := w.all(quit)
		if !ok {
			return
		}
		began := time.Now()
		for i, v := range w.h.sampler.look(w.h.all(), ls, began) {
			ks[i].put(v)
		}
		took := time.Since(began)
		timer.Reset(max(pace-took, (share-1)*took))
	}
}

// put leaves a view for who watches.
func (k *watcher) put(v *view) {
	select {
	case <-k.views: // an older one
	default:
	}
	k.views <- v // nobody else puts
}
