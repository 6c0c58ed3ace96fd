package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
)

// Protocol is the native protocol, for a server's or client's list of them.
type Protocol struct{}

// Name returns "sluice".
func (Protocol) Name() string { return "sluice" }

// Caps tells what the native protocol can carry: everything.
func (Protocol) Caps() frame.Caps {
	return frame.Caps{
		Name: "sluice", ALPN: "sluice/1", HalfClose: true, Ended: true, Status: true, Stop: true, ServerOpens: true,
		Early: true, Ping: true, MaxFragment: DefaultMaxFragment, MaxInline: MaxInline, MaxStream: maxStreamID,
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

// ErrNotSluice: the other side speaks something else.
var ErrNotSluice = errors.New("the peer does not speak this protocol")

// Handshake exchanges magic and Hello: the client's first, the server's when it
// has let the client in.
func (Protocol) Handshake(ctx context.Context, rw io.ReadWriter, h *frame.Greeting) (frame.Session, error) {
	s := New(int(h.Own.MaxFragment))
	s.reader.maxMetadata = int(h.Own.MaxMetadata)
	h.Own.Version = Version
	if h.Client {
		if err := s.hello(rw, &h.Own); err != nil {
			return nil, err
		}
	}
	if err := s.greet(rw, h); err != nil {
		return nil, s.refuse(rw, h, err)
	}
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
	if h.Own.Checksum && h.Peer.Checksum {
		s.SetChecksum()
	}
	return s, nil
}

// hello sends magic and settings.
func (s *Session) hello(w io.Writer, own *frame.Settings) error {
	o := frame.Out{Buf: []byte(Magic)}
	s.Control(&o, &frame.Frame{Kind: frame.Hello, Settings: *own})
	_, err := w.Write(o.Buf)
	return err
}

// denial is what Authenticate's error becomes. Only what was meant for the peer goes
// there: it is still a stranger.
func denial(err error) error {
	var no *frame.Refused
	if errors.As(err, &no) {
		return err
	}
	return &frame.Refused{Code: frame.CodeUnauthenticated, Reason: "not authenticated", Cause: err}
}

// refuse says why there will be no connection, as far as the client's side of
// the handshake lets the server say anything, and returns err.
func (s *Session) refuse(w io.Writer, h *frame.Greeting, err error) error {
	var (
		pe *frame.ProtocolError
		no *frame.Refused
		f  = frame.Frame{Kind: frame.GoAway}
	)
	switch {
	case h.Client:
		return err
	case errors.As(err, &no):
		f.Code, f.Reason = no.Code, no.Reason
	case errors.As(err, &pe):
		f.Code, f.Reason = pe.Code, pe.Detail
	default:
		return err
	}
	f.Reason = f.Reason[:min(len(f.Reason), 256)]
	o := frame.Out{Buf: []byte(Magic)}
	s.Control(&o, &f)
	_, _ = w.Write(o.Buf)
	return err
}

// greet reads the peer's magic and Hello into h.Peer.
func (s *Session) greet(r io.Reader, h *frame.Greeting) error {
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
	var f frame.Frame
	for {
		n, err := s.Next(buf, &f)
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
	h.Early = append([]byte(nil), buf...)
	defer s.letGo() // nothing more may ever come
	return s.welcome(&f, h)
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

// welcome checks the peer's first frame.
func (s *Session) welcome(f *frame.Frame, h *frame.Greeting) error {
	switch f.Kind {
	case frame.Hello:
	case frame.GoAway:
		return &frame.Refused{Code: f.Code, Reason: f.Reason}
	default:
		return &frame.ProtocolError{Proto: "sluice", Code: frame.CodeProtocol, Detail: "the first frame is no hello"}
	}
	p := &f.Settings
	if p.Version != Version {
		return &frame.ProtocolError{Proto: "sluice", Code: frame.CodeVersion,
			Detail: fmt.Sprintf("version %d, supported is %d", p.Version, Version)}
	}
	if err := checkSettings(p); err != nil {
		return err
	}
	h.Peer = *p
	return nil
}

// checkSettings refuses values that no peer can mean.
func checkSettings(p *frame.Settings) error {
	for _, c := range []struct {
		name     string
		code     frame.Code
		v        uint64
		min, max uint64
	}{
		{"largest fragment", frame.CodeProtocol, p.MaxFragment, 1 << 10, 1 << 20},
		{"largest message", frame.CodeProtocol, p.MaxMessage, 1, pool.MaxLen},
		{"streams", frame.CodeProtocol, p.MaxStreams, 0, maxStreamID},
		{"metadata", frame.CodeProtocol, p.MaxMetadata, 0, math.MaxUint32},
		{"initial credit", frame.CodeFlowControl, p.InitialCredit, 0, math.MaxInt32},
		{"connection credit", frame.CodeFlowControl, p.ConnCredit, 0, math.MaxInt32},
	} {
		if c.v < c.min || c.v > c.max {
			return &frame.ProtocolError{Proto: "sluice", Code: c.code,
				Detail: fmt.Sprintf("hello: %s of %d, must be %d to %d", c.name, c.v, c.min, c.max)}
		}
	}
	return nil
}
