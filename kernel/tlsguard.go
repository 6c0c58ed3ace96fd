package kernel

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"time"
)

// soundTLS guards the callbacks of c, which is a copy of the program's: one that panics, ends
// its goroutine or takes longer than Limits.Handshake is an error of its handshake. hello,
// which may be nil, is told that a client has begun. A nil c stays nil.
func (ep *endpoint) soundTLS(c *tls.Config, hello func(net.Conn)) {
	if c == nil {
		return
	}
	ep.soundVerify(c)
	if w := c.KeyLogWriter; w != nil {
		c.KeyLogWriter = soundWriter{ep, w}
	}
	if f := c.GetCertificate; f != nil {
		c.GetCertificate = func(i *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return tlsCall(ep, i.Context(), "GetCertificate", func() (*tls.Certificate, error) { return f(i) })
		}
	}
	if f := c.GetClientCertificate; f != nil {
		c.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tlsCall(ep, i.Context(), "GetClientCertificate", func() (*tls.Certificate, error) { return f(i) })
			if cert == nil && err == nil {
				err = &hookError{"tls.Config.GetClientCertificate", "returned no certificate"}
			}
			return cert, err
		}
	}
	f := c.GetConfigForClient
	if f == nil && hello == nil {
		return
	}
	c.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello != nil {
			hello(i.Conn)
		}
		if f == nil {
			return nil, nil
		}
		own, err := tlsCall(ep, i.Context(), "GetConfigForClient", func() (*tls.Config, error) { return f(i) })
		if own != nil {
			own = own.Clone()
			own.GetConfigForClient = nil // nobody asks for it
			ep.soundTLS(own, nil)
		}
		return own, err
	}
}

// soundVerify is soundTLS for the callbacks that verify.
func (ep *endpoint) soundVerify(c *tls.Config) {
	if f := c.VerifyPeerCertificate; f != nil {
		c.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			_, err := tlsCall(ep, context.Background(), "VerifyPeerCertificate", func() (struct{}, error) { return struct{}{}, f(raw, chains) })
			return err
		}
	}
	if f := c.VerifyConnection; f != nil {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := tlsCall(ep, context.Background(), "VerifyConnection", func() (struct{}, error) { return struct{}{}, f(s) })
			return err
		}
	}
}

// A soundWriter is a tls.Config's KeyLogWriter. Package tls writes to it under a lock of its own,
// which all handshakes of the process that log their keys wait for, and which stays locked where a
// write panics or ends its goroutine.
type soundWriter struct {
	ep *endpoint
	w  io.Writer
}

// Write implements io.Writer.
func (s soundWriter) Write(p []byte) (int, error) {
	p = bytes.Clone(p) // it may be written later
	return tlsCall(s.ep, context.Background(), "KeyLogWriter", func() (int, error) { return s.w.Write(p) })
}

// tlsCall calls a callback. It gives up a moment before the whole handshake does, so that an
// error names the callback.
func tlsCall[T any](ep *endpoint, ctx context.Context, name string, f func() (T, error)) (T, error) {
	most := ep.limits.Handshake / 16 * 15
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)-ep.limits.Handshake/16)
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return within(ctx, ep, "tls.Config."+name, nil, f, nil)
}
