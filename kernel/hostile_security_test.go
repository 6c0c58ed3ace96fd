package kernel_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// Rows 91 to 94: a peer that does not show a certificate that the server's authority
// signed for this use and this time, or does not speak this protocol over TLS
// 1.3, gets no further than the handshake; a client takes no server under
// another name.
func TestHostileTLS(t *testing.T) {
	signed := func(name string, change func(*x509.Certificate)) tls.Certificate { return signedBy(t, name, change) }
	for _, row := range []struct {
		name   string
		client func(*tls.Config)
		ok     bool
	}{
		{"an honest client", func(*tls.Config) {}, true},
		{"91 TLS 1.2 only", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
		{"91 TLS 1.1 only", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, false},
		{"92 no certificate", func(c *tls.Config) { c.Certificates = nil }, false},
		{"92 a certificate of the past", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{signed("past", func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) })}
		}, false},
		{"92 a certificate of the future", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{signed("future", func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Minute) })}
		}, false},
		{"92 a certificate for servers", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{signed("server", func(x *x509.Certificate) {
				x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			})}
		}, false},
		{"92 another authority's certificate", func(c *tls.Config) {
			authority, key := certificate("unknown", nil, nil)
			own, _ := certificate("client", authority.Leaf, key)
			c.Certificates = []tls.Certificate{own}
		}, false},
		{"92 a certificate signed by itself", func(c *tls.Config) {
			own, _ := certificate("client", nil, nil)
			c.Certificates = []tls.Certificate{own}
		}, false},
		{"93 the server under another name", func(c *tls.Config) { c.ServerName = "elsewhere.example" }, false},
		{"94 another protocol", func(c *tls.Config) { c.NextProtos = []string{"h2"} }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs := authorityFor(t)
			asked := 0
			tg := newTarget(t, false, kernel.ServerOptions{TLS: ours, Authenticate: func(context.Context, kernel.Peer) (kernel.Identity, error) {
				asked++
				return nil, nil
			}})
			row.client(theirs)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			client, err := kernel.Dial(ctx, tg.Addr, quietClient(&kernel.ClientOptions{TLS: theirs}))
			if err == nil {
				_, err = client.Call(ctx, "echo", text("x"), nil)
				_ = client.Close()
			}
			if (err == nil) != row.ok {
				t.Errorf("a call gave %v", err)
			}
			if !row.ok && asked > 0 {
				t.Error("it got as far as the program's own check")
			}
			if !row.ok && !tg.Settle(func() bool { return tg.Srv.Stats().Failed > 0 }) {
				t.Errorf("nothing was counted: %+v", tg.Srv.Stats())
			}
		})
	}
}

// authorityFor makes both sides' configurations.
func authorityFor(t *testing.T) (srv, client *tls.Config) {
	t.Helper()
	authority, _ := signer()
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	return &tls.Config{
			Certificates: []tls.Certificate{signedBy(t, "server", func(*x509.Certificate) {})},
			ClientCAs:    roots, ClientAuth: tls.RequireAndVerifyClientCert,
		}, &tls.Config{
			Certificates: []tls.Certificate{signedBy(t, "client", func(*x509.Certificate) {})}, RootCAs: roots,
		}
}

// signer is the authority that both sides trust.
var signer = sync.OnceValues(func() (tls.Certificate, *ecdsa.PrivateKey) { return certificate("authority", nil, nil) })

// signedBy makes a certificate that the authority signed, with a change.
func signedBy(t *testing.T, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	authority, key := signer()
	own, ownKey := certificate(name, authority.Leaf, key)
	c := *own.Leaf
	change(&c)
	der, err := x509.CreateCertificate(rand.Reader, &c, authority.Leaf, &ownKey.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: ownKey}
}

// Row 101: a certificate that is replaced while the server runs is used for the
// next connection, and the one that there is stays.
func TestHostileCertificateReplaced(t *testing.T) {
	ours, theirs := authorityFor(t)
	second := signedBy(t, "second", func(*x509.Certificate) {})
	current := make(chan *tls.Certificate, 1)
	current <- &ours.Certificates[0]
	ours.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := <-current
		current <- c
		return c, nil
	}
	ours.Certificates = nil
	tg := newTarget(t, false, kernel.ServerOptions{TLS: ours})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	name := func(c *kernel.Client) string {
		t.Helper()
		if _, err := c.Call(ctx, "echo", text("x"), nil); err != nil {
			t.Fatal(err)
		}
		k, err := c.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return k.Peer().TLS.PeerCertificates[0].Subject.CommonName
	}
	dial := func() *kernel.Client {
		t.Helper()
		c, err := kernel.Dial(ctx, tg.Addr, quietClient(&kernel.ClientOptions{TLS: theirs}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	old := dial()
	if n := name(old); n != "server" {
		t.Fatal(n)
	}
	<-current
	current <- &second
	if n := name(dial()); n != "second" {
		t.Errorf("the next connection is shown %q", n)
	}
	if n := name(old); n != "server" {
		t.Errorf("the old connection is now %q", n)
	}
}

// Rows 95 to 98: no stream before the server has let the client in, none that
// the program denies, and no metadata can change the identity of a peer.
func TestHostileIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := make(chan kernel.Identity, 10)
		tg := newTarget(t, true, kernel.ServerOptions{
			Limits: targetLimits(),
			Authenticate: func(ctx context.Context, p kernel.Peer) (kernel.Identity, error) {
				switch string(p.Token) {
				case "slow":
					<-ctx.Done()
					return nil, ctx.Err()
				case "":
					return nil, errors.New("who are you?")
				}
				return string(p.Token), nil
			},
			Authorize: func(_ context.Context, id kernel.Identity, method string, md metadata.MD) error {
				if method == "secret" && id != "root" {
					return &status.HandlerError{Code: status.PermissionDenied, Reason: "not yours"}
				}
				return nil
			},
		})
		serve := func(_ context.Context, s *kernel.Stream) error {
			ran <- s.Conn().Identity()
			return nil
		}
		tg.Srv.Handle("secret", serve)
		tg.Srv.Handle("open", serve)

		for token, code := range map[string]status.Code{"": status.Unauthenticated, "slow": status.Unauthenticated} {
			r := tg.connectSilently()
			s := hello()
			s.MinVersion, s.MaxVersion, s.Token = 1, 1, []byte(token)
			_ = r.write(join(greeting(frames(frame.Frame{Kind: frame.Hello, Settings: s})), frames(openFrame(1, "open"))))
			time.Sleep(6 * time.Second)
			synctest.Wait()
			r.handshakeEnded(connection, code)
		}

		s := hello()
		s.Token = []byte("reader")
		r := tg.attack(s)
		id := r.open("secret")
		f := openFrame(r.next, "open")
		f.Metadata = metadata.MD{{Key: "identity", Value: "root"}, {Key: "token", Value: "root"}, {Key: "x-sluice-identity", Value: "root"}}
		r.next += 2
		r.say(f)
		synctest.Wait()
		if h, ok := r.find(frame.Reject, id); !ok || h.code != status.PermissionDenied || !h.fresh {
			t.Errorf("97: not denied: %s", r.tail())
		}
		if len(ran) != 1 {
			t.Fatalf("%d handlers ran", len(ran))
		}
		if who := <-ran; who != "reader" {
			t.Errorf("98: the handler was told of %v", who)
		}
		r.echoes()
		r.settled()
	})
}
