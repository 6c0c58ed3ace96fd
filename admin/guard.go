package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// secure sets the headers that every answer has: nothing comes from elsewhere, nothing is
// framed, nothing is kept.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
		"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // with none, browsers say that forms come from the origin "null"
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// admits reports whether a request is answered. It has answered those that are not.
func (h *Handler) admits(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case !h.knowsHost(r.Host):
		// A name that an attacker has pointed here would make their page and ours one origin.
		h.refuse(w, r, http.StatusMisdirectedRequest, "this host name is not one of admin.Options.Hosts")
	case !sameOrigin(r):
		h.refuse(w, r, http.StatusForbidden, "asked for by a page of another origin")
	case h.opts.Private && !public(r.URL.Path) && !h.knows(r):
		h.challenge(w, r)
	default:
		return true
	}
	return false
}

// public reports whether a path is open to who watches over the process, also where pages are
// private.
func public(path string) bool {
	return path == "/healthz" || path == "/readyz" || path == "/version"
}

// knowsHost reports whether the Host of a request is an address, localhost, or one of
// Options.Hosts.
func (h *Handler) knowsHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || slices.ContainsFunc(h.opts.Hosts, func(s string) bool { return strings.EqualFold(s, host) })
}

// sameOrigin reports whether a request is not one that a page of another origin has made. A
// link may lead here from anywhere.
func sameOrigin(r *http.Request) bool {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		if !safe || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return false
		}
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

// knows reports whether a request has the token.
func (h *Handler) knows(r *http.Request) bool {
	if h.opts.Token == "" {
		return false
	}
	_, given, ok := r.BasicAuth()
	if !ok {
		given, ok = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	got, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(h.opts.Token))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// allowed reports whether a request may do what needs the token. It has answered those that
// may not.
func (h *Handler) allowed(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case h.opts.Token == "":
		h.refuse(w, r, http.StatusForbidden, "this needs a token, and admin.Options has none")
	case !h.knows(r):
		h.challenge(w, r)
	default:
		return true
	}
	return false
}

// challenge asks for the token.
func (h *Handler) challenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("WWW-Authenticate", `Basic realm="sluice admin: any user name, the token as password", charset="UTF-8"`)
	if r.Header.Get("Authorization") == "" {
		http.Error(w, "this needs the token", http.StatusUnauthorized)
		return
	}
	h.refuse(w, r, http.StatusUnauthorized, "wrong token")
}

func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, code int, why string) {
	h.opts.Logger.Warn("sluice: admin: refused", "why", why, "peer", r.RemoteAddr, "path", clean(r.URL.Path), "host", clean(r.Host))
	http.Error(w, why, code)
}

// login has a browser ask for the token, so that it has it for the actions.
func (h *Handler) login(w http.ResponseWriter, r *http.Request) {
	if h.allowed(w, r) {
		w.Header().Set("Location", "./")
		w.WriteHeader(http.StatusSeeOther)
	}
}
