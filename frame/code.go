package frame

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
	CodeOK                 Code = 0
	CodeCancelled          Code = 1
	CodeUnknown            Code = 2
	CodeInvalidArgument    Code = 3
	CodeDeadlineExceeded   Code = 4
	CodeNotFound           Code = 5
	CodeAlreadyExists      Code = 6
	CodePermissionDenied   Code = 7
	CodeResourceExhausted  Code = 8 // also: refused because a limit is reached
	CodeFailedPrecondition Code = 9
	CodeAborted            Code = 10
	CodeOutOfRange         Code = 11
	CodeUnimplemented      Code = 12 // also: no such method
	CodeInternal           Code = 13 // also: the handler panicked
	CodeUnavailable        Code = 14
	CodeDataLoss           Code = 15
	CodeUnauthenticated    Code = 16
)

// The kernel's own codes.
const (
	CodeProtocol         Code = 64 // the peer broke a rule of the wire
	CodeFlowControl      Code = 65 // more was sent than there was credit for
	CodeFrameSize        Code = 66 // a length that its kind of frame can't have
	CodeStreamState      Code = 67 // a frame that the stream's state does not allow
	CodeChecksum         Code = 68 // bytes were changed on the way
	CodeEnhanceYourCalm  Code = 69 // a peer that costs more than it should
	CodeTooLarge         Code = 70 // a message or metadata beyond the limit
	CodeVersion          Code = 71 // no common version
	CodeHandshakeTimeout Code = 72
	CodeGoingAway        Code = 73 // the server is shutting down
	CodeRefused          Code = 74 // not processed: safe to try again
	CodeIdleTimeout      Code = 75
	CodeKeepalive        Code = 76 // the peer does not answer
	CodeWriteStall       Code = 77 // the peer does not read
	CodeConnectionLost   Code = 78 // the connection ended under the stream
)

// FirstAppCode is the first code that applications may define.
const FirstAppCode Code = 256

var codeNames = map[Code]string{
	CodeOK: "OK", CodeCancelled: "CANCELLED", CodeUnknown: "UNKNOWN", CodeInvalidArgument: "INVALID_ARGUMENT",
	CodeDeadlineExceeded: "DEADLINE_EXCEEDED", CodeNotFound: "NOT_FOUND", CodeAlreadyExists: "ALREADY_EXISTS",
	CodePermissionDenied: "PERMISSION_DENIED", CodeResourceExhausted: "RESOURCE_EXHAUSTED",
	CodeFailedPrecondition: "FAILED_PRECONDITION", CodeAborted: "ABORTED", CodeOutOfRange: "OUT_OF_RANGE",
	CodeUnimplemented: "UNIMPLEMENTED", CodeInternal: "INTERNAL", CodeUnavailable: "UNAVAILABLE",
	CodeDataLoss: "DATA_LOSS", CodeUnauthenticated: "UNAUTHENTICATED",
	CodeProtocol: "PROTOCOL", CodeFlowControl: "FLOW_CONTROL", CodeFrameSize: "FRAME_SIZE",
	CodeStreamState: "STREAM_STATE", CodeChecksum: "CHECKSUM", CodeEnhanceYourCalm: "ENHANCE_YOUR_CALM", CodeTooLarge: "TOO_LARGE",
	CodeVersion: "VERSION", CodeHandshakeTimeout: "HANDSHAKE_TIMEOUT", CodeGoingAway: "GOING_AWAY",
	CodeRefused: "REFUSED", CodeIdleTimeout: "IDLE_TIMEOUT", CodeKeepalive: "KEEPALIVE",
	CodeWriteStall: "WRITE_STALL", CodeConnectionLost: "CONNECTION_LOST",
}

// appNames are the names of applications' codes, Code to string.
var appNames sync.Map

// NameCode gives a code of the application's a name for texts; the number alone travels. It
// panics if c is less than FirstAppCode.
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
