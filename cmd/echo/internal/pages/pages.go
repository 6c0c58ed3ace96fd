// Package pages serves the admin pages of the program, if its flags ask for them.
package pages

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/kernel"
)

// Flags say where the pages are. Logging has a level that the pages change.
type Flags struct {
	addr, token string
	level       slog.LevelVar
}

// Logger writes to out what is of the level or above.
func (f *Flags) Logger(out io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: &f.level}))
}

// Register registers them.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.addr, "admin", "", "serve pages that show connections and streams at this `HOST:PORT`; without a host, on 127.0.0.1 (default none)")
	fs.StringVar(&f.token, "admin-token", "", "`FILE` with the token, of 16 bytes or more, for the pages' actions and profiles (default there are none)")
}

// Pages are the pages of the program's servers. Nil are none.
type Pages struct {
	h  *admin.Handler
	ln net.Listener

	mu    sync.Mutex
	names map[*kernel.Server]string // of those that are shown
	n     int                       // how many were
}

// Open listens for who wants to see the pages. It returns nil if the flags ask for none.
func (f *Flags) Open(ctx context.Context, logger *slog.Logger) (*Pages, error) {
	if f.addr == "" {
		return nil, nil
	}
	o := &admin.Options{Logger: logger, Level: &f.level}
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
	return &Pages{h: h, ln: ln, names: map[*kernel.Server]string{}}, nil
}

// Observe has a server that is made with opts tell the pages what begins and ends.
func (p *Pages) Observe(opts *kernel.ServerOptions) {
	if p != nil {
		opts.Observer = p.h
	}
}

// Add has the pages show a server, as "echo" or, where others were shown before, "echo 2".
func (p *Pages) Add(srv *kernel.Server) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := "echo"
	if p.n++; p.n > 1 {
		name = fmt.Sprint("echo ", p.n)
	}
	p.names[srv] = name
	p.h.AddServer(name, srv)
}

// Remove has them show it no more.
func (p *Pages) Remove(srv *kernel.Server) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.h.Remove(p.names[srv])
	delete(p.names, srv)
}

// Serve serves the pages until stop is called, and tells out where.
func (p *Pages) Serve(out io.Writer) (stop func()) {
	if p == nil {
		return func() {}
	}
	fmt.Fprintf(out, "pages at http://%s/\n", p.ln.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.h.Serve(ctx, p.ln) })
	return func() {
		cancel()
		wg.Wait()
	}
}
