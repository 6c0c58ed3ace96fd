package sluicepeer

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/benchmarks/peer"
)

// A watching is a server's pages that may be watched, as by two browsers. Nil is none.
type watching struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// watched are the pages: those that look at every stream.
var watched = []string{"/?format=events", "/streams?format=events&sort=rate"}

// watch serves pages, and watches them, if that is the peer's part, and has o say so.
func (p sluicePeer) watch(o *peer.Options) (*watching, error) {
	if !p.pages {
		return nil, nil
	}
	h, err := admin.NewHandler(nil)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ln, err := admin.Listen(ctx, ":0")
	if err != nil {
		stop()
		return nil, err
	}
	o.Pages, o.Observed = h, true
	w := &watching{stop: stop}
	w.wg.Go(func() { _ = h.Serve(ctx, ln) })
	for _, path := range watched {
		if !p.watched {
			break
		}
		w.wg.Go(func() { read(ctx, ln, path) })
	}
	return w, nil
}

// read reads what a page sends.
func read(ctx context.Context, ln net.Listener, path string) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ln.Addr().String()+path, nil)
	if err != nil {
		return
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

func (w *watching) end() {
	if w == nil {
		return
	}
	w.stop()
	w.wg.Wait()
}
