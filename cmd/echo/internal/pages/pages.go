// Package pages serves the admin pages of the program, if its flags ask for them.
package pages

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/kernel"
)

// Flags say where the pages are.
type Flags struct{ addr, token string }

// Register registers them.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.addr, "admin", "", "serve pages that show connections and streams at this `HOST:PORT`; without a host, on 127.0.0.1 (default none)")
	fs.StringVar(&f.token, "admin-token", "", "`FILE` with the token, of 16 bytes or more, for the pages' actions and profiles (default there are none)")
}

// Pages are the pages of a server. Nil are none.
type Pages struct {
	h  *admin.Handler
	ln net.Listener
}

// Open listens for who wants to see the pages, and has the server that is made with opts tell
// them what begins and ends. It returns nil if the flags ask for none.
func (f *Flags) Open(ctx context.Context, opts *kernel.ServerOptions) (*Pages, error) {
	if f.addr == "" {
		return nil, nil
	}
	o := &admin.Options{Logger: opts.Logger}
	if f.token != "" {
		text, err := os.ReadFile(f.token)
		if err != nil {
			return nil, err
		}
		o.Token = string(bytes.TrimSpace(text))
	}
	h, err := admin.NewHandler(o)
	if err != nil {
		return nil, err
	}
	ln, err := admin.Listen(ctx, f.addr)
	if err != nil {
		return nil, err
	}
	opts.Observer = h
	return &Pages{h, ln}, nil
}

// Serve shows a server until stop is called, and tells out where.
func (p *Pages) Serve(srv *kernel.Server, out io.Writer) (stop func()) {
	if p == nil {
		return func() {}
	}
	p.h.AddServer("echo", srv)
	fmt.Fprintf(out, "pages at http://%s/\n", p.ln.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.h.Serve(ctx, p.ln) })
	return func() {
		cancel()
		wg.Wait()
	}
}
