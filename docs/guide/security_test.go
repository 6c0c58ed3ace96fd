package guide_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

func fromFiles() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair("server.pem", "server.key")
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
}

// A user is who a client has proved to be.
type user struct {
	name  string
	admin bool
}

func mutualTLS(cert tls.Certificate, clientCAs *x509.CertPool) *kernel.ServerOptions {
	return &kernel.ServerOptions{
		TLS: &tls.Config{
			Certificates: []tls.Certificate{cert},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    clientCAs,
		},
		// Who is it? Once for each connection, before any stream.
		Authenticate: func(_ context.Context, p kernel.Peer) (kernel.Identity, error) {
			name := p.TLS.PeerCertificates[0].Subject.CommonName
			return &user{name: name, admin: name == "ada"}, nil
		},
		// May it do this? For each open, before its handler.
		Authorize: func(_ context.Context, id kernel.Identity, method string, _ metadata.MD) error {
			if strings.HasPrefix(method, "admin/") && !id.(*user).admin {
				return errors.New("admins only")
			}
			return nil
		},
	}
}

func whoAmI(ctx context.Context, _ struct{}) (string, error) {
	return kernel.FromContext(ctx).Conn().Identity().(*user).name, nil
}

// checkToken refuses streams that don't come with the token of the call.
func checkToken(valid func(token string) bool) kernel.Middleware {
	return func(next kernel.Handler) kernel.Handler {
		return func(ctx context.Context, s *kernel.Stream) error {
			if !valid(s.Metadata().Get("token")) {
				return &status.HandlerError{Code: status.Unauthenticated, Reason: "no valid token"}
			}
			return next(ctx, s)
		}
	}
}

func callWithToken(ctx context.Context, c kernel.Caller, token string) (string, error) {
	opts := &rpc.CallOptions{CallOptions: kernel.CallOptions{
		Metadata: metadata.MD{{Key: "token", Value: token}},
	}}
	return rpc.Call[string](ctx, c, "greet", "Ada", opts)
}

// certificate makes a certificate that is its own authority.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.OK(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"memory"},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},

		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.OK(t, err)
	leaf, err := x509.ParseCertificate(der)
	testkit.OK(t, err)
	authority := x509.NewCertPool()
	authority.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, authority
}

func TestMutualTLS(t *testing.T) {
	serverCert, serverCA := certificate(t, "server")
	for name, want := range map[string]string{"ada": "ada", "bob": "PERMISSION_DENIED"} {
		clientCert, clientCA := certificate(t, name)
		opts := mutualTLS(serverCert, clientCA)
		srv, client := kerneltest.Start(t, testkit.QuietServer(opts), &kernel.ClientOptions{
			TLS: &tls.Config{RootCAs: serverCA, Certificates: []tls.Certificate{clientCert}},
		})
		testkit.OK(t, rpc.HandleUnary(srv, "admin/who", whoAmI, nil))
		testkit.OK(t, rpc.HandleUnary(srv, "who", whoAmI, nil))
		if got, err := rpc.Call[string](t.Context(), client, "who", struct{}{}, nil); err != nil || got != name {
			t.Errorf("%s is %q, %v", name, got, err)
		}
		got, err := rpc.Call[string](t.Context(), client, "admin/who", struct{}{}, nil)
		if code, _ := status.Of(err); err != nil {
			got = code.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestTokenOfACall(t *testing.T) {
	inBubble(t, nil, nil, func(t *testing.T, w *world) {
		w.Srv.Use(checkToken(func(token string) bool { return token == "sesame" }))
		testkit.OK(t, rpc.HandleUnary(w.Srv, "greet", func(_ context.Context, name string) (string, error) {
			return "hello " + name, nil
		}, nil))
		if got, err := callWithToken(w.Ctx, w.Client, "sesame"); err != nil || got != "hello Ada" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := callWithToken(w.Ctx, w.Client, "tahini"); !errors.Is(err, &status.StreamError{Code: status.Unauthenticated}) {
			t.Error(err)
		}
	})
}

func TestFromFilesSaysWhatIsMissing(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := fromFiles(); err == nil {
		t.Error("a certificate came from nowhere")
	}
}
