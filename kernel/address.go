package kernel

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
)

// An address is where a client dials or a server listens: a TCP address "host:port", or a
// Unix socket "unix:PATH". A path that begins with "@" is in Linux's abstract namespace.
type address struct{ network, addr string }

const unixPrefix = "unix:"

// parseAddress parses an address for op, "dial" or "listen".
func parseAddress(op, text string) (address, error) {
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		if path = strings.TrimPrefix(path, "//"); path == "" {
			return address{}, errtext.Errorf("sluice: %s %s: the path is missing", op, text)
		}
		return address{"unix", path}, nil
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return address{}, errtext.Errorf("sluice: %s %s: %w", op, text, err)
	}
	return address{"tcp", text}, nil
}

// Network implements net.Addr.
func (a address) Network() string { return a.network }

// String implements net.Addr. It is what parseAddress takes.
func (a address) String() string {
	if a.network == "unix" {
		return unixPrefix + a.addr
	}
	return a.addr
}

// host is the name of the server: for its certificate, and for protocols that send it.
func (a address) host() string {
	if host, _, err := net.SplitHostPort(a.addr); err == nil && a.network == "tcp" {
		return host
	}
	return "localhost"
}

// authority is host with the port, if there is one.
func (a address) authority() string {
	if a.network == "tcp" {
		return a.addr
	}
	return a.host()
}

// Listen listens on addr, for Server.Serve: on the TCP address "host:port", where port 0 is a
// free one, or on the Unix socket "unix:PATH". A path that begins with "@" is in Linux's
// abstract namespace. A socket's file is removed when its listener is closed; one that a process has
// left behind which was killed must be removed before. The error is a status.ConnError whose Op is
// "listen".
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	a, err := parseAddress("listen", addr)
	if err != nil {
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, a.network, a.addr)
	if err != nil {
		return nil, &status.ConnError{Addr: a, Op: "listen", Err: err}
	}
	return ln, nil
}

// addrHost is a peer's address without its port, for Limits.MaxConnsPerAddr. It is "" for
// peers that have none: clients of a Unix socket are not one client. An IPv6 network of 64
// bits is one address, because one host has all of it; what is on this link alone is not.
func addrHost(a net.Addr) string {
	var ip netip.Addr
	switch t := a.(type) {
	case *net.TCPAddr:
		ip = t.AddrPort().Addr()
	case *net.UnixAddr:
		return ""
	default:
		ap, err := netip.ParseAddrPort(a.String())
		if err != nil {
			return a.String()
		}
		ip = ap.Addr()
	}
	if ip = ip.Unmap(); !ip.Is6() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return ip.String()
	}
	net64, _ := ip.Prefix(64) // without the zone
	return net64.String()
}
