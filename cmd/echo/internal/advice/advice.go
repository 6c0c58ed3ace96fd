// Package advice turns an error into what a program's user can do about it. The type
// of the library's errors tells what has ended, their code or cause why.
package advice

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sluicerpc/sluice/cmd/echo/internal/cli"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// OnListen is the error of a server that is to listen on addr, with advice where there is
// some.
func OnListen(addr string, err error) error {
	switch {
	case errors.Is(err, kernel.ErrLimits):
		return cli.Usage(err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use by another program; choose another one with -addr", addr)
	}
	return err
}

// A Call is what the client was asked to do.
type Call struct {
	Addr, Method string
	Secure       bool          // it speaks TLS
	Timeout      time.Duration // 0: none
}

// On is err with advice, or err where there is none.
func (c *Call) On(err error) error {
	var (
		ce *status.ConnError
		se *status.StreamError
	)
	switch {
	case err == nil:
		return nil
	case c.Timeout > 0 && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("gave up after %v", c.Timeout)
	case errors.As(err, &se):
		return c.onStream(se, err)
	case errors.As(err, &ce) && ce.Op == "dial":
		return c.onDial(err)
	case errors.As(err, &ce) && ce.Op == "handshake":
		return c.onHandshake(ce, err)
	}
	return err
}

func (c *Call) onStream(se *status.StreamError, err error) error {
	switch {
	case se.Code == status.ConnectionLost:
		return fmt.Errorf("lost the connection to %s in mid-stream: %w", c.Addr, lastCause(se))
	case se.NotProcessed && se.Code == status.GoingAway:
		return fmt.Errorf("%s is shutting down and did not process the stream", c.Addr)
	case se.Refused && se.Code == status.Unimplemented:
		return fmt.Errorf("%s has no method %q", c.Addr, c.Method)
	case se.Code == status.Unauthenticated:
		return c.onToken(err)
	}
	return err
}

func (c *Call) onDial(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("no server listens on %s; start one with: echo serve -addr %s", c.Addr, c.Addr)
	}
	return err
}

func (c *Call) onHandshake(ce *status.ConnError, err error) error {
	var ua x509.UnknownAuthorityError
	switch {
	case errors.As(err, &ua):
		return fmt.Errorf("the certificate of %s is signed by an unknown authority; name that with -ca, or try -insecure", c.Addr)
	case strings.Contains(err.Error(), "certificate required"):
		return fmt.Errorf("%s requires a client certificate; give -cert and -key", c.Addr)
	case ce.Code == status.Unauthenticated:
		return c.onToken(err)
	case closedByPeer(err) && c.Secure:
		return fmt.Errorf("%s closed the connection in the TLS handshake; if it serves plain text, leave the TLS flags out", c.Addr)
	case closedByPeer(err):
		return fmt.Errorf("%s closed the connection in the handshake; if it serves TLS, try -tls", c.Addr)
	}
	return err
}

func (c *Call) onToken(err error) error {
	return fmt.Errorf("%s wants the right token; give its file with -token: %w", c.Addr, err)
}

// lastCause is the innermost error, such as the system's.
func lastCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// closedByPeer tells whether the peer ended the connection without a reason.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded)
}
