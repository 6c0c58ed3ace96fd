package kernel

import "github.com/sluicerpc/sluice/frame"

// A Code says why a stream or a connection ended. Numbers 0 to 16 are gRPC's
// status codes, 64 to 255 are the kernel's own, and from FirstAppCode on they
// are the application's. Numbers that this program does not know are kept.
type Code = frame.Code

// Metadata is an ordered list of keys and values that travels with an open, an
// answer or an end: Get, Values, Add. Keys are lower-case ASCII letters, digits,
// '-', '_' and '.'; values are any bytes. Other keys fail with
// ErrMetadataKey where they are to be sent.
type Metadata = frame.Metadata

// A Field is one key and value of Metadata.
type Field = frame.Field

// A Protocol is one that a server can tell from others by a connection's first bytes, and
// that a client can choose by its name.
type Protocol = frame.Protocol

// FirstAppCode is the first code that applications may define.
const FirstAppCode = frame.FirstAppCode

// NameCode gives a code of the application's a name, which errors and logs of this program
// then have in place of CODE_257. The number alone travels. It may be called at any time,
// and panics if c is less than FirstAppCode.
func NameCode(c Code, name string) { frame.NameCode(c, name) }

// The codes that applications and the kernel share with gRPC.
const (
	CodeOK                 = frame.CodeOK
	CodeCancelled          = frame.CodeCancelled
	CodeUnknown            = frame.CodeUnknown
	CodeInvalidArgument    = frame.CodeInvalidArgument
	CodeDeadlineExceeded   = frame.CodeDeadlineExceeded
	CodeNotFound           = frame.CodeNotFound
	CodeAlreadyExists      = frame.CodeAlreadyExists
	CodePermissionDenied   = frame.CodePermissionDenied
	CodeResourceExhausted  = frame.CodeResourceExhausted
	CodeFailedPrecondition = frame.CodeFailedPrecondition
	CodeAborted            = frame.CodeAborted
	CodeOutOfRange         = frame.CodeOutOfRange
	CodeUnimplemented      = frame.CodeUnimplemented // also: no such method
	CodeInternal           = frame.CodeInternal      // also: the handler panicked
	CodeUnavailable        = frame.CodeUnavailable
	CodeDataLoss           = frame.CodeDataLoss
	CodeUnauthenticated    = frame.CodeUnauthenticated
)

// The kernel's own codes.
const (
	CodeProtocol         = frame.CodeProtocol         // the peer broke a rule of the wire
	CodeFlowControl      = frame.CodeFlowControl      // more was sent than there was credit for
	CodeFrameSize        = frame.CodeFrameSize        // a length that this kind of frame can't have
	CodeStreamState      = frame.CodeStreamState      // a frame that the stream's state does not allow
	CodeChecksum         = frame.CodeChecksum         // bytes were changed on the way
	CodeEnhanceYourCalm  = frame.CodeEnhanceYourCalm  // the peer causes too much work
	CodeTooLarge         = frame.CodeTooLarge         // a message or metadata beyond the limit
	CodeVersion          = frame.CodeVersion          // no common version
	CodeHandshakeTimeout = frame.CodeHandshakeTimeout // the handshake took too long
	CodeGoingAway        = frame.CodeGoingAway        // the server is shutting down
	CodeRefused          = frame.CodeRefused          // not processed: safe to try again
	CodeIdleTimeout      = frame.CodeIdleTimeout      // nothing happened for too long
	CodeKeepalive        = frame.CodeKeepalive        // the peer does not answer
	CodeWriteStall       = frame.CodeWriteStall       // the peer does not read
	CodeConnectionLost   = frame.CodeConnectionLost   // the connection ended under the stream
)
