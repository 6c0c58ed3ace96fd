package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sluicerpc/sluice/admin"
	"github.com/sluicerpc/sluice/benchmarks/load/proc"
	"github.com/sluicerpc/sluice/benchmarks/peer"
	"github.com/sluicerpc/sluice/benchmarks/peer/all"
)

// serveCmd is the server's side of a run.
type serveCmd struct {
	Peer       string `help:"library to serve with; empty: sluice"`
	Proto      string `default:"sluice" help:"what sluice speaks: sluice, brpc, seastar or grpc"`
	Addr       string `default:"127.0.0.1:9000" help:"where to serve"`
	Admin      string `default:"127.0.0.1:9001" help:"where to serve this process's figures, and sluice's admin pages"`
	Observe    bool   `help:"tell the admin pages of each stream, so that /closed and /methods know"`
	MaxMessage int    `default:"16777216" help:"longest message, in bytes"`
	MaxStreams int    `default:"10000" help:"streams allowed on a connection"`
	MaxConns   int    `default:"10000" help:"connections allowed from an address"`
	Checksum   bool   `help:"transport checksums, where there is a choice"`
	Duplex     bool   `help:"expect clients that send and receive from two goroutines"`
	JSON       bool   `help:"print the addresses as JSON"`
	UntilEOF   bool   `name:"until-eof" help:"serve until standard input ends"`
}

// announcement is what serve --json prints.
type announcement struct {
	Peer  string `json:"peer"`
	Addr  string `json:"addr"`
	Admin string `json:"admin"`
}

// A statsServer is a peer.Server with figures of its own.
type statsServer interface {
	// Stats returns figures by name. It may be called from any goroutine.
	Stats() map[string]float64
}

// Run serves until the context ends.
func (c *serveCmd) Run(e *env) (err error) {
	p, err := findPeer(c.Peer, c.Proto)
	if err != nil {
		return exit(exitUsage, err)
	}
	pages, err := pagesOf(p)
	if err != nil {
		return exit(exitFailed, err)
	}
	figures := &proc.Admin{Peer: p.Name(), MaxMessage: c.MaxMessage}
	if pages != nil {
		figures.Pages = pages
	}
	srv, err := p.Serve(c.Addr, peer.Options{
		MaxMessage: c.MaxMessage, Streams: c.MaxStreams, Conns: c.MaxConns, Checksum: c.Checksum, Duplex: c.Duplex,
		Serving: &figures.Serving, Pages: pages, Observed: pages != nil && c.Observe,
	})
	if err != nil {
		return exit(exitFailed, fmt.Errorf("serve %s at %s: %w", p.Name(), c.Addr, err))
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	if l, ok := srv.(statsServer); ok {
		figures.Library = l.Stats
	}
	if err := figures.Serve(c.Admin); err != nil {
		return exit(exitFailed, fmt.Errorf("figures at %s: %w", c.Admin, err))
	}
	defer func() { err = errors.Join(err, figures.Close()) }()
	if err := c.announce(e.stdout, announcement{p.Name(), srv.Addr(), figures.Addr()}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	if c.UntilEOF {
		go func() { // ends with standard input, or with the process
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	<-ctx.Done()
	return nil
}

// pagesOf returns the admin pages for a server, nil if it is not sluice.
func pagesOf(p peer.Peer) (*admin.Handler, error) {
	if name, _, _ := strings.Cut(p.Name(), "/"); !strings.HasPrefix(name, "sluice") {
		return nil, nil
	}
	return admin.NewHandler(nil)
}

func (c *serveCmd) announce(w io.Writer, a announcement) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(a)
	}
	_, err := fmt.Fprintf(w, "serving %s at %s, figures at %s\n", a.Peer, a.Addr, a.Admin)
	return err
}

// findPeer finds a peer by its name, by default sluice. Sluice over another protocol than
// its own is a peer with that protocol in its name.
func findPeer(name, proto string) (peer.Peer, error) {
	if name == "" {
		name = "sluice"
	}
	if proto != "sluice" && proto != "" {
		name += "/" + proto
	}
	return all.Find(name)
}
