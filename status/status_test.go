package status_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/status"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   status.Code
		reason string
	}{
		{nil, status.OK, ""},
		{errors.New("no such thing"), status.Unknown, "no such thing"},
		{io.EOF, status.Unknown, "EOF"},
		{fmt.Errorf("load: %w", &status.HandlerError{Code: status.NotFound, Reason: "no key"}), status.NotFound, "no key"},
		{&status.HandlerError{Reason: "nothing"}, status.Unknown, "nothing"},
		{&status.StreamError{Code: status.ConnectionLost, Reason: "gone", Cause: &status.ConnError{Code: status.Checksum}}, status.ConnectionLost, "gone"},
		{&status.StreamError{}, status.Unknown, ""},
		{&status.ConnError{Op: "dial", Err: errors.New("refused")}, status.Unavailable, "sluice: dial <nil>: refused"},
		{&status.ConnError{Op: "read", Code: status.Keepalive}, status.Keepalive, "sluice: read <nil>: KEEPALIVE"},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), status.DeadlineExceeded, "query: context deadline exceeded"},
		{context.Canceled, status.Cancelled, "context canceled"},
		{&status.HandlerError{Code: status.Aborted, Reason: context.Canceled.Error()}, status.Aborted, "context canceled"},
	} {
		if code, reason := status.Of(c.err); code != c.code || reason != c.reason {
			t.Errorf("%#v: %v %q, want %v %q", c.err, code, reason, c.code, c.reason)
		}
	}
}

// What comes from a peer, a method or a reason, is quoted where it could forge lines.
func TestTextsOfPeersAreQuoted(t *testing.T) {
	const forged = "x\nlevel=INFO msg=\"all is well\"\x1b[2J\x00"
	for name, err := range map[string]error{
		"ended":   &status.StreamError{Method: forged, Code: status.Aborted, Remote: true, Reason: forged},
		"refused": &status.StreamError{Method: forged, Code: status.Aborted, Refused: true, NotProcessed: true},
		"lost":    &status.StreamError{Method: forged, Code: status.ConnectionLost, Cause: &status.ConnError{Op: "read", Err: io.ErrUnexpectedEOF}},
	} {
		text := err.Error()
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || !strings.Contains(text, `"x\nlevel=INFO`) {
			t.Errorf("%s: %q", name, text)
		}
	}
}
