package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Protocol is the native protocol, for a server's or client's list of them.
type Protocol struct{}

// Name returns "sluice".
func (Protocol) Name() string { return "sluice" }

// Caps tells what the native protocol can carry: everything.
func (Protocol) Caps() frame.Caps {
	return frame.Caps{
		Name: "sluice", ALPN: "sluice/1", HalfClose: true, Ended: true, Status: true, Stop: true, ServerOpens: true,
		Early: true, Limits: true, Ping: true, PingIdle: true, ReadReports: true,
		Overhead: overhead, LeastPiece: overhead + 1,
		MaxFragment: DefaultMaxFragment, MaxStream: maxStreamID, Bundles: tData,
		MaxInline: MaxInline, GrantSize: grantSize, MaxGroup: maxGroup, MaxMetadata: maxMetadata,
		Compression: compress.All,
	}
}

// Detect looks for the magic.
func (Protocol) Detect(first []byte) frame.Verdict {
	n := min(len(first), len(Magic))
	switch {
	case string(first[:n]) != Magic[:n]:
		return frame.No
	case n < len(Magic):
		return frame.More
	}
	return frame.Yes
}

// ErrNotSluice is returned by Handshake if the peer speaks another protocol.
var ErrNotSluice = errors.New("the peer does not speak this protocol")

// Handshake exchanges magic and Hello: the client's first, the server's when it has
// authenticated the client. It offers Version, unless h.Own has a range of versions: that
// of a protocol that wraps this one and implements the other versions.
func (Protocol) Handshake(ctx context.Context, rw io.ReadWriter, h *frame.Greeting) (frame.Session, error) {
	s := New(int(h.Own.MaxFragment))
	s.reader.maxMetadata = int(h.Own.MaxMetadata)
	s.SetChecksum(true) // a side's first frame always travels in a record
	if h.Own.MaxVersion == 0 {
		h.Own.MinVersion, h.Own.MaxVersion = Version, Version
	}
	if h.Client {
		if err := s.hello(rw, &h.Own); err != nil {
			return nil, err
		}
	}
	var f frame.Frame
	switch err := s.readFirst(rw, h, &f); {
	case err != nil && h.Client:
		return nil, err // without an answer: the client can't know whether the server expects records
	case err != nil:
		return nil, s.refuse(rw, h, err)
	case h.Client: // from here on the server uses records only if both sides asked for them
		s.SetChecksum(h.Own.Checksum && f.Settings.Checksum)
	}
	version, err := agree(&f, h)
	if err != nil {
		return nil, s.refuse(rw, h, err)
	}
	s.version = version
	if !h.Client {
		if h.Authenticate != nil {
			if err := h.Authenticate(ctx, &h.Peer); err != nil {
				return nil, s.refuse(rw, h, denial(err))
			}
		}
		if err := s.hello(rw, &h.Own); err != nil {
			return nil, err
		}
	}
	s.SetChecksum(h.Own.Checksum && h.Peer.Checksum)
	return s, nil
}

// hello sends magic and settings.
func (s *Session) hello(w io.Writer, own *frame.Settings) error {
	o := frame.Out{Buf: []byte(Magic)}
	s.Control(&o, &frame.Frame{Kind: frame.Hello, Settings: *own})
	s.Flush(&o)
	_, err := w.Write(o.Buf)
	return err
}

// denial is the error that an error of Authenticate becomes. Its text is not sent to the
// peer, which is not authenticated, unless it is a frame.Refused.
func denial(err error) error {
	var no *frame.Refused
	if errors.As(err, &no) {
		return err
	}
	return &frame.Refused{Code: status.Unauthenticated, Reason: "not authenticated", Cause: err}
}

// refuse tells the peer why there will be no connection, and returns err: a server
// in place of its Hello, a client after both.
func (s *Session) refuse(w io.Writer, h *frame.Greeting, err error) error {
	var (
		pe *status.ProtocolError
		no *frame.Refused
		f  = frame.Frame{Kind: frame.GoAway}
		o  frame.Out
	)
	switch {
	case errors.As(err, &no) && h.Client:
		return err // the server's own refusal
	case no != nil:
		f.Code, f.Reason = no.Code, no.Reason
	case errors.As(err, &pe):
		f.Code, f.Reason = pe.Code, pe.Detail
	default:
		return err
	}
	f.Reason = errtext.Clip(f.Reason, 256)
	if !h.Client {
		o.Buf = []byte(Magic)
	}
	s.Control(&o, &f)
	s.Flush(&o)
	_, _ = w.Write(o.Buf)
	return err
}

// readFirst reads the peer's magic and first frame, which has a record of its own.
func (s *Session) readFirst(r io.Reader, h *frame.Greeting, f *frame.Frame) error {
	buf := append(make([]byte, 0, 4<<10), h.First...)
	for len(buf) < len(Magic) {
		if err := readSome(r, &buf); err != nil {
			return err
		}
		if (Protocol{}).Detect(buf) == frame.No {
			break
		}
	}
	if (Protocol{}).Detect(buf) != frame.Yes {
		return fmt.Errorf("%w: it sent %q", ErrNotSluice, buf[:min(len(buf), len(Magic))])
	}
	buf = buf[len(Magic):]
	for {
		n, err := s.Next(buf, f)
		if err != nil {
			return err
		}
		buf = buf[n:]
		if f.Kind != frame.None {
			break
		}
		if err := readSome(r, &buf); err != nil {
			return err
		}
	}
	defer s.releaseStale() // no further call may come
	if f.Kind != frame.Hello && f.Kind != frame.GoAway {
		return protocolError(status.Protocol, "the first frame is not a HELLO")
	}
	if !s.between() {
		return protocolError(status.Protocol, "the record of the HELLO holds more than the HELLO")
	}
	h.Early = append([]byte(nil), buf...)
	return nil
}

func protocolError(c status.Code, format string, args ...any) error {
	return &status.ProtocolError{Proto: "sluice", Code: c, Detail: fmt.Sprintf(format, args...)}
}

func readSome(r io.Reader, buf *[]byte) error {
	p := make([]byte, 1<<10)
	n, err := r.Read(p)
	*buf = append(*buf, p[:n]...)
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// agree checks the peer's first frame and returns the version to be used: the
// highest that both sides speak.
func agree(f *frame.Frame, h *frame.Greeting) (version uint64, err error) {
	if f.Kind == frame.GoAway {
		return 0, &frame.Refused{Code: f.Code, Reason: f.Reason}
	}
	p := &f.Settings
	if p.MinVersion < 1 || p.MaxVersion < p.MinVersion {
		return 0, protocolError(status.Protocol, "HELLO: versions %d to %d are no range", p.MinVersion, p.MaxVersion)
	}
	version = min(p.MaxVersion, h.Own.MaxVersion)
	if version < max(p.MinVersion, h.Own.MinVersion) {
		client, server := p, &h.Own
		if h.Client {
			client, server = server, client
		}
		return 0, protocolError(status.Version, "no common version: the client speaks %d to %d, the server %d to %d",
			client.MinVersion, client.MaxVersion, server.MinVersion, server.MaxVersion)
	}
	if err := checkSettings(p); err != nil {
		return 0, err
	}
	h.Peer = *p
	return version, nil
}

// checkSettings refuses values out of range. A setting that is missing is 0.
func checkSettings(p *frame.Settings) error {
	for _, c := range []struct {
		name     string
		code     status.Code
		v        uint64
		min, max uint64
	}{
		{"largest fragment", status.Protocol, p.MaxFragment, 1 << 10, 1 << 20},
		{"largest message", status.Protocol, p.MaxMessage, 1, pool.MaxLen},
		{"streams", status.Protocol, p.MaxStreams, 0, maxStreamID},
		{"metadata", status.Protocol, p.MaxMetadata, 0, math.MaxUint32},
		{"initial credit", status.FlowControl, p.InitialCredit, 1, math.MaxInt32},
		{"connection credit", status.FlowControl, p.ConnCredit, 1, math.MaxInt32},
	} {
		if c.v < c.min || c.v > c.max {
			return protocolError(c.code, "HELLO: %s of %d, must be %d to %d", c.name, c.v, c.min, c.max)
		}
	}
	return nil
}
