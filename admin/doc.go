// Package admin serves pages that show what a program's servers and clients do: who is
// blocked, on whom and since when, down to the single stream.
//
//	pages, err := admin.NewHandler(nil)
//	srv, err := kernel.NewServer(&kernel.ServerOptions{Observer: pages})
//	pages.AddServer("echo", srv)
//	ln, err := admin.Listen(ctx, ":9091") // 127.0.0.1, unless a host is named
//	go pages.Serve(ctx, ln)
//
// Each page is HTML for browsers, which needs no JavaScript and is kept up to date with it;
// plain text for curl; and JSON with ?format=json. docs/admin.md describes them.
//
// Nothing is looked at while nobody looks: no goroutine runs, and no timer. The exception is
// what the Handler is told as an Observer, once as a stream begins and once as it ends, of which
// /closed and /methods are made.
//
// Files use those below them:
//
//	handler, listen, guard                  what is served, where, and to whom
//	actions, trace, profiles                what needs the token
//	overview, conns, streams, stream, loops the pages that look at connections
//	closed, methods, fleets, config, health the others
//	serve, events, render                   a page as HTML, text, JSON, and its changes
//	watch, sample, top                      one look a second for all who watch
//	record, histogram                       what the Observer is told
//	schema, view, format                    JSON, pages, figures
package admin
