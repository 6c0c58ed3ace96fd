package status

import (
	"strconv"
	"sync"
)

// A Code says why a stream or a connection ended. Numbers 0 to 16 are gRPC's
// status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), 64 to
// 255 are the kernel's own, and from FirstAppCode on they are the application's.
// A number that this program does not know is kept as it is.
type Code uint32

// The codes that applications and the kernel share with gRPC.
const (
	OK                 Code = 0
	Cancelled          Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8 // also: refused because a limit is reached
	FailedPrecondition Code = 9
	Aborted            Code = 10
	OutOfRange         Code = 11
	Unimplemented      Code = 12 // also: no such method
	Internal           Code = 13 // also: the handler panicked
	Unavailable        Code = 14
	DataLoss           Code = 15
	Unauthenticated    Code = 16
)

// The kernel's own codes.
const (
	Protocol         Code = 64 // the peer broke a rule of the wire
	FlowControl      Code = 65 // more was sent than there was credit for
	FrameSize        Code = 66 // a length that this kind of frame can't have
	StreamState      Code = 67 // a frame that the stream's state does not allow
	Checksum         Code = 68 // bytes were changed on the way
	EnhanceYourCalm  Code = 69 // the peer causes too much work
	TooLarge         Code = 70 // a message or metadata beyond the limit
	Version          Code = 71 // no common version
	HandshakeTimeout Code = 72 // the handshake took too long
	GoingAway        Code = 73 // the server is shutting down
	Refused          Code = 74 // not processed: safe to try again
	IdleTimeout      Code = 75 // nothing happened for too long
	Keepalive        Code = 76 // the peer does not answer
	WriteStall       Code = 77 // the peer does not read
	ConnectionLost   Code = 78 // the connection ended under the stream
)

// FirstAppCode is the first code that applications may define.
const FirstAppCode Code = 256

var codeNames = map[Code]string{
	OK: "OK", Cancelled: "CANCELLED", Unknown: "UNKNOWN", InvalidArgument: "INVALID_ARGUMENT",
	DeadlineExceeded: "DEADLINE_EXCEEDED", NotFound: "NOT_FOUND", AlreadyExists: "ALREADY_EXISTS",
	PermissionDenied: "PERMISSION_DENIED", ResourceExhausted: "RESOURCE_EXHAUSTED",
	FailedPrecondition: "FAILED_PRECONDITION", Aborted: "ABORTED", OutOfRange: "OUT_OF_RANGE",
	Unimplemented: "UNIMPLEMENTED", Internal: "INTERNAL", Unavailable: "UNAVAILABLE",
	DataLoss: "DATA_LOSS", Unauthenticated: "UNAUTHENTICATED",
	Protocol: "PROTOCOL", FlowControl: "FLOW_CONTROL", FrameSize: "FRAME_SIZE",
	StreamState: "STREAM_STATE", Checksum: "CHECKSUM", EnhanceYourCalm: "ENHANCE_YOUR_CALM", TooLarge: "TOO_LARGE",
	Version: "VERSION", HandshakeTimeout: "HANDSHAKE_TIMEOUT", GoingAway: "GOING_AWAY",
	Refused: "REFUSED", IdleTimeout: "IDLE_TIMEOUT", Keepalive: "KEEPALIVE",
	WriteStall: "WRITE_STALL", ConnectionLost: "CONNECTION_LOST",
}

// appNames are the names of applications' codes, Code to string.
var appNames sync.Map

// NameCode gives a code of the application's a name, which errors and logs of this program
// then have in place of CODE_257. The number alone travels. It may be called at any time,
// and panics if c is less than FirstAppCode.
func NameCode(c Code, name string) {
	if c < FirstAppCode {
		panic("sluice: name for " + c.String() + ", which is no application's")
	}
	appNames.Store(c, name)
}

// String returns the code's name, or CODE_n for one without a name.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	if s, ok := appNames.Load(c); ok {
		return s.(string)
	}
	return "CODE_" + strconv.FormatUint(uint64(c), 10)
}
