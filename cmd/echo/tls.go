package main

import (
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
)

// The library takes a *tls.Config as it is; this file makes one from flags. With TLS,
// each connection is a net.Conn with a goroutine that reads it; without, connections
// share event loops. Nothing else in this program differs.

// serverTLS are the flags of serve about TLS.
type serverTLS struct {
	cert, key, clientCA string
	selfSigned          bool
}

func (f *serverTLS) register(fs *flag.FlagSet) {
	fs.StringVar(&f.cert, "cert", "", "serve over TLS with the certificate chain in this PEM `FILE`")
	fs.StringVar(&f.key, "key", "", "PEM `FILE` with the certificate's key")
	fs.StringVar(&f.clientCA, "client-ca", "", "accept only clients with a certificate signed by one in this PEM `FILE`")
	fs.BoolVar(&f.selfSigned, "self-signed", false, "serve over TLS with a certificate generated now, for tests")
}

func (f *serverTLS) describe() string {
	switch {
	case f.selfSigned:
		return " (TLS, self-signed: use call -insecure)"
	case f.cert != "":
		return " (TLS)"
	}
	return ""
}

// config is the server's configuration, nil for plain text.
func (f *serverTLS) config() (*tls.Config, error) {
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, usagef("-cert and -key go together")
	case f.selfSigned && f.cert != "":
		return nil, usagef("-self-signed makes its own certificate: leave -cert and -key out")
	case f.clientCA != "" && !f.selfSigned && f.cert == "":
		return nil, usagef("-client-ca needs TLS: give -cert and -key, or -self-signed")
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

func (f *serverTLS) certificate() (tls.Certificate, error) {
	if f.selfSigned {
		return selfSigned()
	}
	return tls.LoadX509KeyPair(f.cert, f.key)
}

// clientTLS are the flags of call about TLS.
type clientTLS struct {
	on, insecure  bool
	ca, cert, key string
}

func (f *clientTLS) register(fs *flag.FlagSet) {
	fs.BoolVar(&f.on, "tls", false, "use TLS; the flags below imply it")
	fs.StringVar(&f.ca, "ca", "", "trust only servers whose certificate is signed by one in this PEM `FILE`")
	fs.BoolVar(&f.insecure, "insecure", false, "accept any certificate of the server, for tests")
	fs.StringVar(&f.cert, "cert", "", "PEM `FILE` with the client's certificate chain")
	fs.StringVar(&f.key, "key", "", "PEM `FILE` with that certificate's key")
}

// config is the client's configuration, nil for plain text.
func (f *clientTLS) config() (*tls.Config, error) {
	f.on = f.on || f.insecure || f.ca != "" || f.cert != "" || f.key != ""
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, usagef("-cert and -key go together")
	case f.insecure && f.ca != "":
		return nil, usagef("-insecure accepts any certificate: leave -ca out")
	case !f.on:
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
