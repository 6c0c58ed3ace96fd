package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
)

// An authority signs certificates and keeps all its files in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.sign("ca", a.cert)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name+".pem") }

// sign writes NAME.pem and NAME-key.pem.
func (a *authority) sign(name string, c *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.key == nil {
		a.key = key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	der2, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name, "CERTIFICATE", der)
	a.write(name+"-key", "PRIVATE KEY", der2)
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(a.file(name), text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestSelfSigned(t *testing.T) {
	srv := start(t, "serve", "-addr", "127.0.0.1:0", "-self-signed")
	line := srv.wantLine(`call -insecure`)
	addr := strings.Fields(line)[5]
	r := runEcho(t, "secret\n", "call", "-addr", addr, "-insecure")
	r.wantOK(t)
	if r.stdout != "secret\n" {
		t.Errorf("got %q", r.stdout)
	}
	runEcho(t, "", "call", "-addr", addr, "-insecure", "-count", "50", "-size", "100K", "-streams", "3").wantOK(t)
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	ca.sign("server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ca.sign("client", &x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	_, addr := startServer(t,
		"-cert", ca.file("server"), "-key", ca.file("server-key"), "-client-ca", ca.file("ca"))
	call := []string{"call", "-addr", addr, "-ca", ca.file("ca")}

	r := runEcho(t, "secret\n", append(call, "-cert", ca.file("client"), "-key", ca.file("client-key"))...)
	r.wantOK(t)
	if r.stdout != "secret\n" {
		t.Errorf("got %q", r.stdout)
	}
	runEcho(t, "secret\n", call...).wantError(t, cli.ExitFailed, "requires a client certificate")

	unknown := newAuthority(t)
	unknown.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	runEcho(t, "secret\n", append(call, "-cert", unknown.file("client"), "-key", unknown.file("client-key"))...).
		wantError(t, cli.ExitFailed, "remote error: tls")
	runEcho(t, "secret\n", "call", "-addr", addr, "-ca", unknown.file("ca")).
		wantError(t, cli.ExitFailed, "signed by an unknown authority")
	runEcho(t, "", "call", "-addr", addr, "-ca", ca.file("client-key")).
		wantError(t, cli.ExitFailed, "holds no PEM certificate")
}

// A server with a token refuses who has not got it, over every protocol that carries one.
func TestToken(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right, wrong, empty := file("right", "secret\n"), file("wrong", "guess"), file("empty", "\n")
	_, addr := startServer(t, "-token", right)
	for _, proto := range []string{"sluice", "brpc"} {
		call := []string{"call", "-addr", addr, "-proto", proto, "-timeout", "10s"}
		r := runEcho(t, "open\n", append(call, "-token", right)...)
		r.wantOK(t)
		if r.stdout != "open\n" {
			t.Errorf("%s: %q came back", proto, r.stdout)
		}
		runEcho(t, "open\n", append(call, "-token", wrong)...).wantError(t, cli.ExitFailed, `-token: .*UNAUTHENTICATED`)
		runEcho(t, "open\n", call...).wantError(t, cli.ExitFailed, `-token: .*UNAUTHENTICATED`)
	}
	runEcho(t, "open\n", "call", "-addr", addr, "-token", empty).wantError(t, cli.ExitFailed, `holds no token`)
	runEcho(t, "", "serve", "-addr", "127.0.0.1:0", "-token", filepath.Join(dir, "none")).wantError(t, cli.ExitFailed, `no such file|cannot find`)
}
