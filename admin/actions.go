package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// mostForm is how many bytes the form of an action has.
const mostForm = 4 << 10

// act does what a request asks for, if it has the token.
func (h *Handler) act(w http.ResponseWriter, r *http.Request) {
	if !h.allowed(w, r) {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, mostForm)
	if err := r.ParseForm(); err != nil {
		h.fail(w, r, badRequest("a form that can't be read: "+err.Error()))
		return
	}
	name := r.PathValue("name")
	do := map[string]func(*http.Request) (*view, error){
		"drain": h.drain, "reset": h.reset, "close-conn": h.closeConn, "drain-conn": h.drainConn, "trace": h.trace, "level": h.setLevel,
	}[name]
	if do == nil {
		h.fail(w, r, notFound("there is no such action"))
		return
	}
	v, err := do(r)
	if err != nil {
		h.opts.Logger.Warn("sluice: admin: action failed", "action", name, "of", clean(r.Form.Encode()), "peer", r.RemoteAddr, "error", cleanTo(err.Error(), mostReason))
		h.fail(w, r, err)
		return
	}
	h.opts.Logger.Warn("sluice: admin: action", "action", name, "of", clean(r.Form.Encode()), "peer", r.RemoteAddr)
	v.path = r.URL.Path
	h.write(w, r, formOf(r), v.finish())
}

// done is the page that says what was done.
func done(what string) *view {
	return &view{Title: "Done", Lead: []line{{Text: what, Class: "good"}}, data: func() any {
		return struct {
			Done string `json:"done"`
		}{what}
	}}
}

// drain begins to drain a server.
func (h *Handler) drain(r *http.Request) (*view, error) {
	name := r.Form.Get("server")
	for _, s := range h.all() {
		if s.name == name && s.srv != nil {
			go func() { _ = s.srv.Shutdown(context.Background()) }() // bounded by Limits.Drain
			return done(name + " drains, for " + duration(s.srv.Options().Limits.Drain) + " at most."), nil
		}
	}
	return nil, notFound("there is no such server")
}

// reset ends a stream.
func (h *Handler) reset(r *http.Request) (*view, error) {
	id := r.Form.Get("stream")
	_, _, s, err := h.findStream(id)
	if err != nil {
		return nil, err
	}
	s.Abort(status.Cancelled, "reset by an operator")
	return done("Stream " + id + " was reset."), nil
}

func (h *Handler) connOf(r *http.Request) (*source, *kernel.Conn, error) {
	id, err := strconv.ParseUint(r.Form.Get("conn"), 10, 64)
	if err != nil {
		return nil, nil, badRequest("conn is a connection's number")
	}
	from, c := h.findConn(id)
	if c == nil {
		return nil, nil, notFound("connection " + strconv.FormatUint(id, 10) + " is not open")
	}
	return from, c, nil
}

func (h *Handler) closeConn(r *http.Request) (*view, error) {
	_, c, err := h.connOf(r)
	if err != nil {
		return nil, err
	}
	return done("Connection " + strconv.FormatUint(c.ID(), 10) + " was closed."), c.Close()
}

func (h *Handler) drainConn(r *http.Request) (*view, error) {
	_, c, err := h.connOf(r)
	if err != nil {
		return nil, err
	}
	c.Drain()
	return done("Connection " + strconv.FormatUint(c.ID(), 10) + " drains: it ends with its last stream."), nil
}

// setLevel sets the level of logging.
func (h *Handler) setLevel(r *http.Request) (*view, error) {
	if h.opts.Level == nil {
		return nil, notFound("admin.Options has no Level")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.Form.Get("level"))); err != nil {
		return nil, errors.Join(badRequest("level is DEBUG, INFO, WARN or ERROR"), err)
	}
	h.opts.Level.Set(level)
	return done("The level is " + level.String() + "."), nil
}
