// Package credentials reads, as flags say, what servers and clients prove who they are
// with: certificates for TLS, and a token.
package credentials

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
)

// Server are a server's flags.
type Server struct {
	cert, key, clientCA, token string
	selfSigned                 bool
}

// Register registers them.
func (f *Server) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.cert, "cert", "", "serve over TLS with the certificate chain in this PEM `FILE`")
	fs.StringVar(&f.key, "key", "", "PEM `FILE` with the certificate's key")
	fs.StringVar(&f.clientCA, "client-ca", "", "accept only clients with a certificate signed by one in this PEM `FILE`")
	fs.BoolVar(&f.selfSigned, "self-signed", false, "serve over TLS with a certificate generated now, for tests")
	fs.StringVar(&f.token, "token", "", "accept only clients that send the token in this `FILE`")
}

// String describes the server for who starts a client, "" for plain text.
func (f *Server) String() string {
	switch {
	case f.selfSigned:
		return " (TLS, self-signed: use call -insecure)"
	case f.cert != "":
		return " (TLS)"
	}
	return ""
}

// Credentials reads what the flags name: a server's configuration, nil for plain text, and
// the token that clients must send, nil if they need not.
func (f *Server) Credentials() (*tls.Config, []byte, error) {
	c, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	token, err := readToken(f.token)
	return c, token, err
}

func (f *Server) config() (*tls.Config, error) {
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, cli.Usagef("-cert and -key go together")
	case f.selfSigned && f.cert != "":
		return nil, cli.Usagef("-self-signed makes its own certificate: leave -cert and -key out")
	case f.clientCA != "" && !f.selfSigned && f.cert == "":
		return nil, cli.Usagef("-client-ca needs TLS: give -cert and -key, or -self-signed")
	case !f.selfSigned && f.cert == "":
		return nil, nil
	}
	cert, err := f.certificate()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}}
	if f.clientCA != "" {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs, err = readPool(f.clientCA)
	}
	return c, err
}

func (f *Server) certificate() (tls.Certificate, error) {
	if f.selfSigned {
		return selfSigned()
	}
	return tls.LoadX509KeyPair(f.cert, f.key)
}

// Client are a client's flags.
type Client struct {
	on, insecure         bool
	ca, cert, key, token string
}

// Register registers them.
func (f *Client) Register(fs *flag.FlagSet) {
	fs.BoolVar(&f.on, "tls", false, "use TLS; -ca, -cert, -insecure and -key imply it")
	fs.StringVar(&f.ca, "ca", "", "trust only servers whose certificate is signed by one in this PEM `FILE`")
	fs.BoolVar(&f.insecure, "insecure", false, "accept any certificate of the server, for tests")
	fs.StringVar(&f.cert, "cert", "", "PEM `FILE` with the client's certificate chain")
	fs.StringVar(&f.key, "key", "", "PEM `FILE` with that certificate's key")
	fs.StringVar(&f.token, "token", "", "send the token in this `FILE`")
}

// Credentials reads what the flags name: a client's configuration, nil for plain text, and
// the token that it sends, nil for none.
func (f *Client) Credentials() (*tls.Config, []byte, error) {
	c, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	token, err := readToken(f.token)
	return c, token, err
}

func (f *Client) config() (*tls.Config, error) {
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, cli.Usagef("-cert and -key go together")
	case f.insecure && f.ca != "":
		return nil, cli.Usagef("-insecure accepts any certificate: leave -ca out")
	case !f.on && !f.insecure && f.ca == "" && f.cert == "":
		return nil, nil
	}
	c := &tls.Config{InsecureSkipVerify: f.insecure}
	var err error
	if f.ca != "" {
		if c.RootCAs, err = readPool(f.ca); err != nil {
			return nil, err
		}
	}
	if f.cert != "" {
		cert, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func readToken(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	token := bytes.TrimSpace(text)
	if len(token) == 0 {
		return nil, fmt.Errorf("%s holds no token", file)
	}
	return token, nil
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}

// selfSigned makes a certificate for this machine that is good for a day.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "echo"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
