package kernel_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Servers listen on Unix sockets and clients dial them, by path and by abstract name.
func TestUnixSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	addrs := map[string]string{"path": "unix:" + path, "URL": "unix://" + path, "native://": "sluice://unix:" + path}
	if runtime.GOOS == "linux" {
		addrs["abstract"] = fmt.Sprintf("unix:@sluice-test-%d", os.Getpid())
	}
	for name, target := range addrs {
		t.Run(name, func(t *testing.T) {
			at := target
			if name == "native://" {
				at = "unix:" + path
			}
			srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Limits: kernel.Limits{MaxConnsPerAddr: 1}}))
			ok(t, err)
			srv.Handle("where", func(ctx context.Context, s *kernel.Stream) error {
				return s.Send(ctx, say(s.Conn().Peer().Addr.Network()))
			})
			ln, err := kernel.Listen(t.Context(), at)
			ok(t, err)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(context.Background(), ln) }()
			for range 3 { // peers without an address are not one address
				c, err := kernel.Dial(t.Context(), target, quietClient(nil))
				ok(t, err)
				defer c.Close()
				wantReply(t, c, "where", "unix")
			}
			ok(t, srv.Close())
			isErr(t, "Serve", <-served, kernel.ErrServerClosed)
			isErr(t, "listening twice", srv.ListenAndServe(t.Context(), at), kernel.ErrServerClosed)
		})
	}
}

// An address that can't be one is refused where it is given, and the error names it.
func TestAddressesThatCantBe(t *testing.T) {
	for target, want := range map[string]string{
		"":                  "sluice: dial : missing port in address",
		"localhost":         "sluice: dial localhost: address localhost: missing port in address",
		"unix:":             "sluice: dial unix:: the path is missing",
		"unix://":           "sluice: dial unix://: the path is missing",
		"sluice://unix:":    "sluice: dial unix:: the path is missing",
		"smtp://x:25":       `sluice: dial smtp://x:25: the client has no protocol "smtp"`,
		"unix:/tmp/a://b":   "",
		"sluice://nowhere":  "sluice: dial nowhere: address nowhere: missing port in address",
		"sluice://a:1:2:33": "sluice: dial a:1:2:33: address a:1:2:33: too many colons in address",
		"s://a:1":           `sluice: dial s://a:1: the client has no protocol "s"`,
		"://a:1":            `sluice: dial ://a:1: the client has no protocol ""`,
		"tri://a:1":         `sluice: dial tri://a:1: the client has no protocol "tri"`,
	} {
		_, err := kernel.NewClient(target, nil)
		if err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%q: %v, want %s", target, err, want)
		}
	}
	var ce *status.ConnError
	_, err := kernel.Listen(t.Context(), "unix:/nowhere/at/all")
	if !errors.As(err, &ce) || ce.Op != "listen" || ce.Addr.String() != "unix:/nowhere/at/all" {
		t.Errorf("%v", err)
	}
	_, err = kernel.Dial(t.Context(), "unix:/nowhere/at/all", quietClient(nil))
	var oe *net.OpError
	if !errors.As(err, &ce) || ce.Op != "dial" || ce.Addr.String() != "unix:/nowhere/at/all" || !errors.As(err, &oe) {
		t.Errorf("%v", err)
	}
}

// A protocol has further words in targets. Each means plain text unless the options have TLS, and
// with an s behind it TLS, as the protocol's name does.
func TestFurtherWordsForAProtocol(t *testing.T) {
	serverTLS, clientTLS := certificates()
	addrs := map[bool]string{}
	for secure, c := range map[bool]*tls.Config{false: nil, true: serverTLS} {
		srv, err := kernel.NewServer(quietServer(&kernel.ServerOptions{Protocols: []frame.Protocol{triple.Protocol{}}, TLS: c}))
		ok(t, err)
		srv.Handle("secure", func(ctx context.Context, s *kernel.Stream) error {
			return s.Send(ctx, say(fmt.Sprint(s.Conn().Peer().TLS != nil)))
		})
		ln := listen(t)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), ln) }()
		t.Cleanup(func() {
			ok(t, srv.Close())
			isErr(t, "Serve", <-served, kernel.ErrServerClosed)
		})
		addrs[secure] = ln.Addr().String()
	}
	for _, word := range []string{"grpc", "triple", "tri"} {
		for _, tc := range []struct {
			target string
			tls    *tls.Config
			want   string // "": the client knows no authority
		}{
			{word + "://" + addrs[false], nil, "false"},
			{word + "://" + addrs[true], clientTLS, "true"},
			{word + "s://" + addrs[true], clientTLS, "true"},
			{word + "s://" + addrs[true], nil, ""},
		} {
			t.Run(fmt.Sprintf("%s, TLS: %v", tc.target[:len(word)+1], tc.tls != nil), func(t *testing.T) {
				c, err := kernel.Dial(t.Context(), tc.target, quietClient(&kernel.ClientOptions{
					Protocols: []frame.Protocol{native.Protocol{}, triple.Protocol{}}, TLS: tc.tls,
				}))
				if tc.want == "" {
					var unknown x509.UnknownAuthorityError
					if !errors.As(err, &unknown) {
						t.Errorf("%v", err)
					}
					return
				}
				ok(t, err)
				defer c.Close()
				if name := c.Caps().Name; name != triple.Name {
					t.Errorf("the protocol is %s", name)
				}
				wantReply(t, c, "secure", tc.want)
			})
		}
	}
}

// What is no word of a protocol's is refused, whatever is in the list of them.
func TestSchemesThatAreNone(t *testing.T) {
	for _, scheme := range []string{"", "s", "t", "rip", "trip", "tripless", "triple,tri", ",triple", "tri,", ",", "triple,tris", "TRI"} {
		c, err := kernel.NewClient(scheme+"://a:1", &kernel.ClientOptions{Protocols: []frame.Protocol{triple.Protocol{}}})
		want := fmt.Sprintf("sluice: dial %s://a:1: the client has no protocol %q", scheme, scheme)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", scheme, err)
		}
		if err == nil {
			ok(t, c.Close())
		}
	}
}

// A protocol whose name a scheme is comes before one that has it as another word.
func TestANameComesBeforeOtherWords(t *testing.T) {
	own := renamed{Protocol: native.Protocol{}, name: "tri"}
	c, err := kernel.NewClient("tri://a:1", &kernel.ClientOptions{Protocols: []frame.Protocol{triple.Protocol{}, own}})
	ok(t, err)
	defer c.Close()
	if got, want := c.Caps(), own.Caps(); got != want {
		t.Errorf("the protocol is %s", got.Name)
	}
}

// renamed is a protocol by another name.
type renamed struct {
	frame.Protocol
	name string
}

func (n renamed) Name() string { return n.name }
