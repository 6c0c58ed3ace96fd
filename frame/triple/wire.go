package triple

import (
	"encoding/binary"
	"fmt"

	"github.com/sluicerpc/sluice/status"
)

// headerLen is the length of a frame's header: 3 bytes of length, type, flags, stream.
const headerLen = 9

// The types of frames (RFC 9113, section 6).
const (
	tData         = 0x0
	tHeaders      = 0x1
	tPriority     = 0x2
	tRST          = 0x3
	tSettings     = 0x4
	tPushPromise  = 0x5
	tPing         = 0x6
	tGoAway       = 0x7
	tWindowUpdate = 0x8
	tContinuation = 0x9
)

// Their flags.
const (
	fEndStream  = 0x1  // DATA, HEADERS
	fAck        = 0x1  // SETTINGS, PING
	fEndHeaders = 0x4  // HEADERS, CONTINUATION
	fPadded     = 0x8  // DATA, HEADERS
	fPriority   = 0x20 // HEADERS
)

// The settings that are known here (RFC 9113, section 6.5.2).
const (
	setTableSize     = 0x1
	setPush          = 0x2
	setMaxStreams    = 0x3
	setInitialWindow = 0x4
	setMaxFrame      = 0x5
	setMaxHeaderList = 0x6
	// setMaxMessage is sluice's own, which others ignore: the longest message that this
	// side takes, bytes. A peer that sends it is a sluice program: see Session.peer.
	setMaxMessage = 0x5c1c
	// setConnWindow is the connection's window, likewise: if it is more than HTTP/2's, the
	// WINDOW_UPDATE that opens it is the next frame.
	setConnWindow = 0x5c1d
)

// What HTTP/2 says a connection begins with.
const (
	defaultTableSize = 4 << 10
	defaultWindow    = 65_535
	defaultMaxFrame  = 16 << 10
	maxMaxFrame      = 1<<24 - 1
	maxWindow        = 1<<31 - 1
	maxStream        = 1<<31 - 1
)

// ownMaxFrame is the longest payload of a frame that we take: SETTINGS_MAX_FRAME_SIZE.
const ownMaxFrame = 64 << 10

// preface is what a client sends first. Its first frame, SETTINGS, follows.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// sluiceError is the first of the errors in an RST_STREAM that are sluice's own: the others
// follow by the code of the stream's end. Who does not know them takes them for an
// INTERNAL_ERROR, and only sluice programs are sent them.
const sluiceError = 0x5c1c_0000

// prefixLen is the length of what is before each message: a flag, and its length in 4 bytes.
const prefixLen = 5

func appendHeader(b []byte, n int, typ, flags byte, id uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), typ, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

// patchLength sets the length, and adds flags, of the header that begins at b.
func patchLength(b []byte, n int, flags byte) {
	b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n)
	b[4] |= flags
}

func appendPrefix(b []byte, n int, packed bool) []byte {
	flag := byte(0)
	if packed {
		flag = 1
	}
	return binary.BigEndian.AppendUint32(append(b, flag), uint32(n))
}

func appendRST(b []byte, id uint32, e http2Error) []byte {
	b = appendHeader(b, 4, tRST, 0, id)
	return binary.BigEndian.AppendUint32(b, uint32(e))
}

func appendWindowUpdate(b []byte, id uint32, n uint32) []byte {
	b = appendHeader(b, 4, tWindowUpdate, 0, id)
	return binary.BigEndian.AppendUint32(b, n)
}

func appendPing(b []byte, v uint64, flags byte) []byte {
	b = appendHeader(b, 8, tPing, flags, 0)
	return binary.BigEndian.AppendUint64(b, v)
}

// maxDebug is how much of a reason a GOAWAY carries, bytes.
const maxDebug = 1 << 10

func appendGoAway(b []byte, last uint32, e http2Error, debug string) []byte {
	if len(debug) > maxDebug {
		debug = debug[:maxDebug]
	}
	b = appendHeader(b, 8+len(debug), tGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return append(b, debug...)
}

func appendSetting(b []byte, id uint16, v uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, id)
	return binary.BigEndian.AppendUint32(b, v)
}

// fault is what ends the connection: an error of the peer's.
func (s *Session) fault(c status.Code, format string, args ...any) error {
	return &status.ProtocolError{Proto: Name, Code: c, Offset: s.in.begun, Detail: fmt.Sprintf(format, args...)}
}
