package triple

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/compress"
	"github.com/sluicerpc/sluice/status"
)

// Name is what targets and logs call the protocol: "grpc://host:port".
const Name = "grpc"

// schemes are what Dubbo's programs call it in targets: its documentation, and dubbo-go.
const schemes = ",triple,tri,"

// Protocol is gRPC on HTTP/2, for a server's or client's list of protocols. The zero value
// works.
type Protocol struct {
	// UserAgent is put before sluice's own in the user-agent of a client's requests.
	UserAgent string
	// Authority is what a client's requests name as the server. Empty is the host and port
	// that the client dials.
	Authority string
	// Dubbo is for programs that talk with Dubbo's, and look at the fields of its Triple. A
	// server's answers have a date; their trailers repeat content-type and
	// grpc-accept-encoding, and have a grpc-message with the status OK too. On both sides
	// metadata that comes shows the fields of gRPC's own as well: content-type, grpc-status,
	// grpc-message, grpc-encoding, grpc-accept-encoding, grpc-timeout. Metadata that is sent
	// can't have them.
	Dubbo bool
	// InsecureToken lets a client send its Token over connections without TLS, where
	// everybody on the way can read it.
	InsecureToken bool
}

// Name returns "grpc".
func (Protocol) Name() string { return Name }

// Caps tells what the protocol can carry.
func (Protocol) Caps() frame.Caps {
	return frame.Caps{
		Name: Name, Schemes: schemes, ALPN: "h2",
		HalfClose: true, Status: true, AnswerStatus: true, StopAtEnd: true, Early: true, Limits: true, Ping: true,
		FixedWindow: true, EarlyWindow: defaultWindow, ConnWindow: defaultWindow, Overhead: prefixLen, LeastPiece: 1,
		MaxFragment: maxFragment, MaxStream: maxStream, MaxGroup: 1, MaxMetadata: maxMetadata,
		Compression: compress.All, StreamCompression: true,
		Keepalive: keepalive, TextValues: true, Reserved: reserved,
	}
}

// keepalive is after how long a silent peer is pinged: gRPC's servers take a ping every 5
// minutes, and end the connection of a client that sends more.
const keepalive = 6 * time.Minute

// maxFragment is the longest piece of a message that is written at once. It is cut into as
// many frames as the peer's SETTINGS_MAX_FRAME_SIZE asks for.
const maxFragment = 64 << 10

// maxMetadata is how much metadata a frame's worth of headers has at most, bytes;
// headerSpare is what gRPC's own headers take beside it.
const (
	maxMetadata = 48 << 10
	headerSpare = 4 << 10
)

// Detect looks for the preface of HTTP/2, and for a request of HTTP/1, which is answered.
func (Protocol) Detect(first []byte) frame.Verdict {
	v := begins(first, preface)
	for _, m := range methods {
		if v != frame.Yes {
			v = max(v, begins(first, m))
		}
	}
	return v
}

// methods are how a request of HTTP/1 begins.
var methods = []string{"GET /", "POST /", "PUT /", "HEAD /", "DELETE /", "PATCH /", "OPTIONS ", "CONNECT ", "TRACE /"}

// begins tells whether what began with first is what begins with s.
func begins(first []byte, s string) frame.Verdict {
	n := min(len(first), len(s))
	switch {
	case string(first[:n]) != s[:n]:
		return frame.No
	case n < len(s):
		return frame.More
	}
	return frame.Yes
}

var (
	errHTTP1     = errors.New("grpc: a request of HTTP/1, which was answered with 505")
	errNotFirst  = errors.New("grpc: the peer's first frame is not SETTINGS")
	errToken     = errors.New("grpc: a token in plain text: use TLS, or InsecureToken")
	errTokenText = errors.New("grpc: a token that is not printable ASCII")
)

// http505 is the answer to HTTP/1.
const http505 = "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nContent-Length: 22\r\nConnection: close\r\n\r\ngRPC takes HTTP/2 only"

// Handshake exchanges SETTINGS. A server that refuses a client writes a GOAWAY.
func (p Protocol) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	if g.Client {
		if err := p.checkToken(g); err != nil {
			return nil, err
		}
	} else if err := readPreface(rw, g); err != nil {
		return nil, err
	}
	s := newSession(p, g)
	var b []byte
	if g.Client {
		b = append(b, preface...)
	}
	if _, err := rw.Write(s.appendOwnSettings(b, &g.Own)); err != nil {
		return nil, err
	}
	payload, early, err := readSettings(rw, g.First)
	if err == nil {
		err = s.readPeerSettings(payload)
	}
	if err == nil {
		early, err = s.readConnWindow(rw, early)
	}
	if err != nil {
		var e http2Error = eProtocol
		var pe *status.ProtocolError
		if errors.As(err, &pe) {
			e = errorOf(pe.Code)
		}
		lastWords(rw, appendGoAway(nil, 0, e, err.Error()))
		return nil, fmt.Errorf("grpc: %w", err)
	}
	s.in.connFirst = s.in.connSum
	s.granted.Store(s.in.connSum)
	g.Early, g.Peer = early, s.settings()
	if g.Authenticate != nil {
		if err := g.Authenticate(ctx, &g.Peer); err != nil {
			lastWords(rw, appendGoAway(nil, 0, eInadequateSecurity, refusal(err)))
			return nil, fmt.Errorf("grpc: %w", err)
		}
	}
	s.applyPeer()
	_, err = rw.Write(appendHeader(nil, 0, tSettings, fAck, 0))
	return s, err
}

// refusal is what a client is told that was refused.
func refusal(err error) string {
	var no *frame.Refused
	if errors.As(err, &no) {
		return no.Code.String() + ": " + no.Reason
	}
	return status.Unauthenticated.String()
}

func (p Protocol) checkToken(g *frame.Greeting) error {
	switch {
	case len(g.Own.Token) == 0:
		return nil
	case !g.Secure && !p.InsecureToken:
		return errToken
	case !isText(string(g.Own.Token)):
		return errTokenText
	}
	return nil
}

// readPreface reads what is left of the client's preface. It answers a request of HTTP/1.
func readPreface(rw io.ReadWriter, g *frame.Greeting) error {
	if begins(g.First, preface) == frame.No {
		lastWords(rw, []byte(http505))
		return errHTTP1
	}
	if n := len(preface) - len(g.First); n > 0 {
		rest := make([]byte, n)
		if _, err := io.ReadFull(rw, rest); err != nil {
			return err
		}
		if string(g.First)+string(rest) != preface {
			return errNotFirst
		}
		g.First = nil
	} else {
		g.First = g.First[len(preface):]
	}
	return nil
}

// lastWords writes p and ends the writing half, and reads for a while: a connection that is
// closed with something unread would not deliver p.
func lastWords(rw io.ReadWriter, p []byte) {
	_, err := rw.Write(p)
	if c, ok := rw.(interface{ CloseWrite() error }); ok && err == nil && c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, rw, 64<<10)
	}
}

// readSettings reads the peer's first frame, which is SETTINGS. early is what was read
// beyond it.
func readSettings(r io.Reader, first []byte) (payload, early []byte, err error) {
	b, err := readTo(r, append(make([]byte, 0, 256), first...), headerLen)
	if err != nil {
		return nil, nil, err
	}
	n := int(binary.BigEndian.Uint32(b) >> 8)
	switch {
	case b[3] != tSettings || b[4]&fAck != 0 || binary.BigEndian.Uint32(b[5:])&maxStream != 0:
		return nil, nil, errNotFirst
	case n > defaultMaxFrame || n%6 != 0:
		return nil, nil, &status.ProtocolError{Proto: Name, Code: status.FrameSize, Detail: fmt.Sprintf("SETTINGS of %d bytes", n)}
	}
	if b, err = readTo(r, b, headerLen+n); err != nil {
		return nil, nil, err
	}
	return b[headerLen : headerLen+n], b[headerLen+n:], nil
}

// readConnWindow reads the WINDOW_UPDATE of the connection that follows SETTINGS, if one
// does for certain or is there already.
func (s *Session) readConnWindow(r io.Reader, b []byte) ([]byte, error) {
	const n = headerLen + 4
	in := &s.in
	if in.peer.connWindow > defaultWindow {
		var err error
		if b, err = readTo(r, b, n); err != nil {
			return nil, err
		}
	}
	if len(b) < n || b[3] != tWindowUpdate || binary.BigEndian.Uint32(b)>>8 != 4 || binary.BigEndian.Uint32(b[5:])&maxStream != 0 {
		return b, nil
	}
	grown := binary.BigEndian.Uint32(b[headerLen:]) & maxWindow
	if grown == 0 || uint64(grown)+in.connSum > maxWindow {
		return b, nil // the reader says what is wrong
	}
	in.connSum += uint64(grown)
	return b[n:], nil
}

// readTo reads until buf holds n bytes, or more.
func readTo(r io.Reader, buf []byte, n int) ([]byte, error) {
	for len(buf) < n {
		if cap(buf) == len(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		k, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+k]
		if k == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
	}
	return buf, nil
}

// appendOwnSettings appends this side's SETTINGS, and what opens the connection's window.
func (s *Session) appendOwnSettings(b []byte, own *frame.Settings) []byte {
	at := len(b)
	b = appendHeader(b, 0, tSettings, 0, 0)
	if s.client {
		b = appendSetting(b, setPush, 0)
	} else {
		b = appendSetting(b, setMaxStreams, uint32(min(own.MaxStreams, math.MaxUint32)))
	}
	b = appendSetting(b, setInitialWindow, uint32(min(own.InitialCredit, maxWindow)))
	b = appendSetting(b, setMaxFrame, ownMaxFrame)
	b = appendSetting(b, setMaxHeaderList, uint32(own.MaxMetadata+headerSpare))
	n := min(own.ConnCredit, maxWindow)
	b = appendSetting(b, setMaxMessage, uint32(min(own.MaxMessage, math.MaxUint32)))
	b = appendSetting(b, setConnWindow, uint32(n))
	patchLength(b[at:], len(b)-at-headerLen, 0)
	if n > defaultWindow {
		b = appendWindowUpdate(b, 0, uint32(n-defaultWindow))
	}
	return b
}

// peerSettings is what the peer has announced.
type peerSettings struct {
	tableSize, maxStreams, initialWindow, maxFrame, maxHeaderList uint32
	maxMessage, connWindow                                        uint32 // 0: not said
}

var defaultSettings = peerSettings{
	tableSize: defaultTableSize, maxStreams: math.MaxUint32, initialWindow: defaultWindow,
	maxFrame: defaultMaxFrame, maxHeaderList: math.MaxUint32,
}

// readPeerSettings changes the peer's settings by the payload of a SETTINGS.
func (s *Session) readPeerSettings(p []byte) error {
	ps := &s.in.peer
	for ; len(p) >= 6; p = p[6:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case setTableSize:
			ps.tableSize = v
		case setPush:
			if v > 1 || v == 1 && s.client {
				return s.fault(status.Protocol, "SETTINGS_ENABLE_PUSH is %d", v)
			}
		case setMaxStreams:
			ps.maxStreams = v
		case setInitialWindow:
			if v > maxWindow {
				return s.fault(status.FlowControl, "SETTINGS_INITIAL_WINDOW_SIZE is %d", v)
			}
			ps.initialWindow = v
		case setMaxFrame:
			if v < defaultMaxFrame || v > maxMaxFrame {
				return s.fault(status.Protocol, "SETTINGS_MAX_FRAME_SIZE is %d", v)
			}
			ps.maxFrame = v
		case setMaxHeaderList:
			ps.maxHeaderList = v
		case setMaxMessage:
			ps.maxMessage = v
		case setConnWindow:
			ps.connWindow = v
		}
	}
	return nil
}

// settings are the peer's, as the kernel takes them. A peer that does not say how long its
// messages may be takes any, and one that does not limit its headers gets 16 KiB of metadata.
func (s *Session) settings() frame.Settings {
	ps := &s.in.peer
	f := frame.Settings{
		MaxFragment: maxFragment, MaxMessage: mostMessage,
		MaxStreams: uint64(ps.maxStreams), MaxMetadata: 16 << 10,
		InitialCredit: uint64(ps.initialWindow), ConnCredit: s.in.connFirst,
		Compression: compress.All, RefusalMetadata: true,
	}
	if ps.maxMessage > 0 {
		f.MaxMessage = min(uint64(ps.maxMessage), mostMessage)
	}
	if ps.maxHeaderList != math.MaxUint32 {
		f.MaxMetadata = uint64(min(max(int64(ps.maxHeaderList)-headerSpare, 0), maxMetadata))
	}
	return f
}

// mostMessage is the longest message that can be sent.
const mostMessage = 1 << 30
