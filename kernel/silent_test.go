package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
)

// clientFrom is a client at an address of the loopback network.
func clientFrom(t *testing.T, from, to string) *kernel.Client {
	t.Helper()
	return must[*kernel.Client](t)(kernel.NewClient(to, quietClient(&kernel.ClientOptions{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			return d.DialContext(ctx, network, addr)
		},
	})))
}

// Sockets that say nothing keep nobody out: neither clients from elsewhere nor those from the
// same address. Those that have said something keep out their own address alone.
func TestSilentSocketsKeepNobodyOut(t *testing.T) {
	for name, c := range map[string]struct {
		say    string
		limits kernel.Limits
		from   []string
		tls    bool
	}{
		"all defaults":         {from: []string{"127.0.0.1", "127.0.0.2"}},
		"all defaults, TLS":    {from: []string{"127.0.0.1"}, tls: true},
		"few from one address": {limits: kernel.Limits{MaxConnsPerAddr: 100}, from: []string{"127.0.0.1", "127.0.0.2"}},
		"few connections":      {limits: kernel.Limits{MaxConns: 100}, from: []string{"127.0.0.1", "127.0.0.2"}},
		"not silent":           {say: native.Magic, from: []string{"127.0.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.limits.Handshake = time.Hour // nothing else makes room
			so := kernel.ServerOptions{Limits: c.limits}
			if c.tls {
				so.TLS, _ = certificates()
			}
			srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(&so)))
			srv.Handle("echo", echo)
			ln := listen(t)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			var conns []net.Conn
			for range 300 {
				nc, err := net.Dial("tcp", ln.Addr().String())
				ok(t, err)
				_, err = io.WriteString(nc, c.say)
				ok(t, err)
				conns = append(conns, nc)
			}
			for refused := c.say == ""; !refused; { // until all that are left have been heard
				nc, err := net.Dial("tcp", ln.Addr().String())
				ok(t, err)
				_, _ = io.WriteString(nc, c.say)
				ok(t, nc.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				_, err = nc.Read(make([]byte, 1))
				refused = !errors.Is(err, os.ErrDeadlineExceeded)
				conns = append(conns, nc)
			}
			var wg sync.WaitGroup
			for _, from := range c.from {
				for range 25 {
					wg.Go(func() {
						client := clientFrom(t, from, ln.Addr().String())
						if c.tls {
							_, config := certificates()
							client = must[*kernel.Client](t)(kernel.NewClient(ln.Addr().String(), quietClient(&kernel.ClientOptions{TLS: config})))
						}
						defer client.Close()
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						m, err := client.Call(ctx, "echo", text("in"), nil)
						if err != nil {
							t.Errorf("from %s: %v", from, err)
						}
						m.Release()
					})
				}
			}
			wg.Wait()
			for _, nc := range conns {
				_ = nc.Close()
			}
			ok(t, srv.Close())
			isErr(t, "Serve", <-served, kernel.ErrServerClosed)
		})
	}
}

// remoteConn is a connection from an address of a test's choice.
type remoteConn struct {
	net.Conn
	from net.Addr
}

func (c remoteConn) RemoteAddr() net.Addr { return c.from }

// remoteListener accepts the connections that it is given.
type remoteListener struct {
	net.Listener
	conns chan net.Conn
}

func (l remoteListener) Accept() (net.Conn, error) {
	nc, open := <-l.conns
	if !open {
		return nil, net.ErrClosed
	}
	return nc, nil
}

func (l remoteListener) Close() error { close(l.conns); return nil }

// MaxConnsPerAddr counts an IPv6 network of 64 bits as one address, for any kind of address
// that has a port.
func TestAddressesThatAreOne(t *testing.T) {
	for _, c := range []struct {
		a, b net.Addr
		one  bool
	}{
		{tcp("[2001:db8:1:2::1]:1"), tcp("[2001:db8:1:2:ffff::9]:2"), true},
		{tcp("[2001:db8:1:2::1]:1"), tcp("[2001:db8:1:3::1]:1"), false},
		{tcp("[::ffff:192.0.2.1]:1"), tcp("192.0.2.1:2"), true},
		{tcp("192.0.2.1:1"), tcp("192.0.2.2:1"), false},
		{tcp("[fe80::1]:1"), tcp("[fe80::2]:1"), false},
		{named("192.0.2.1:1"), named("192.0.2.1:2"), true},
		{named("[2001:db8:1:2::1]:1"), tcp("[2001:db8:1:2::7]:7"), true},
		{named("pipe"), named("tube"), false},
	} {
		t.Run(fmt.Sprint(c.a, " ", c.b), func(t *testing.T) {
			srv := must[*kernel.Server](t)(kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxConnsPerAddr: 1}})))
			ln := remoteListener{listen(t), make(chan net.Conn)}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			dial := func(from net.Addr) (*kernel.Client, error) {
				client := must[*kernel.Client](t)(kernel.NewClient("memory:0", quietClient(&kernel.ClientOptions{
					Dial: func(context.Context, string, string) (net.Conn, error) {
						near, far := net.Pipe()
						ln.conns <- remoteConn{far, from}
						return near, nil
					},
				})))
				_, err := client.Conn(t.Context())
				return client, err
			}
			a, err := dial(c.a)
			ok(t, err)
			b, err := dial(c.b)
			if (err != nil) != c.one {
				t.Errorf("the second connection: %v", err)
			}
			ok(t, a.Close())
			ok(t, b.Close())
			ok(t, srv.Close())
			<-served
			_ = ln.Listener.Close()
		})
	}
}

func tcp(s string) net.Addr {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		panic(err)
	}
	return a
}

// A named is an address of a type of the program's own.
type named string

func (named) Network() string  { return "named" }
func (n named) String() string { return string(n) }
