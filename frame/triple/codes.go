package triple

import (
	"strconv"

	"github.com/sluicerpc/sluice/status"
)

// An http2Error is the error code of an RST_STREAM or GOAWAY (RFC 9113, section 7).
type http2Error uint32

const (
	eNo                 http2Error = 0x0
	eProtocol           http2Error = 0x1
	eInternal           http2Error = 0x2
	eFlowControl        http2Error = 0x3
	eSettingsTimeout    http2Error = 0x4
	eStreamClosed       http2Error = 0x5
	eFrameSize          http2Error = 0x6
	eRefused            http2Error = 0x7
	eCancel             http2Error = 0x8
	eCompression        http2Error = 0x9
	eConnect            http2Error = 0xa
	eEnhanceYourCalm    http2Error = 0xb
	eInadequateSecurity http2Error = 0xc
	eHTTP11Required     http2Error = 0xd
)

// http2Errors are HTTP/2's errors by their numbers, with what each means as the end of a stream.
var http2Errors = [...]struct {
	name string
	code status.Code
}{
	eNo:                 {"NO_ERROR", status.Internal}, // a stream without a status: gRPC's table
	eProtocol:           {"PROTOCOL_ERROR", status.Protocol},
	eInternal:           {"INTERNAL_ERROR", status.Internal},
	eFlowControl:        {"FLOW_CONTROL_ERROR", status.FlowControl},
	eSettingsTimeout:    {"SETTINGS_TIMEOUT", status.Internal},
	eStreamClosed:       {"STREAM_CLOSED", status.StreamState},
	eFrameSize:          {"FRAME_SIZE_ERROR", status.FrameSize},
	eRefused:            {"REFUSED_STREAM", status.Refused},
	eCancel:             {"CANCEL", status.Cancelled},
	eCompression:        {"COMPRESSION_ERROR", status.Protocol},
	eConnect:            {"CONNECT_ERROR", status.Internal},
	eEnhanceYourCalm:    {"ENHANCE_YOUR_CALM", status.EnhanceYourCalm},
	eInadequateSecurity: {"INADEQUATE_SECURITY", status.PermissionDenied},
	eHTTP11Required:     {"HTTP_1_1_REQUIRED", status.Unimplemented},
}

func (e http2Error) String() string {
	if int(e) < len(http2Errors) {
		return http2Errors[e].name
	}
	if e > sluiceError && e <= sluiceError+maxSluiceCode {
		return "a reset with " + status.Code(e-sluiceError).String()
	}
	return "HTTP/2 error " + strconv.FormatUint(uint64(e), 10)
}

// code is what a peer's error means. One that is not known is as INTERNAL_ERROR (RFC 9113,
// section 7).
func (e http2Error) code() status.Code {
	if e > sluiceError && e <= sluiceError+maxSluiceCode {
		return status.Code(e - sluiceError)
	}
	if int(e) < len(http2Errors) {
		return http2Errors[e].code
	}
	return status.Internal
}

// maxSluiceCode is the largest code that an error of sluice's own can say.
const maxSluiceCode = 1<<16 - 1

// A codeRow says what a code becomes: as a status of gRPC's, in an RST_STREAM or GOAWAY.
type codeRow struct {
	grpc status.Code
	err  http2Error
}

var codes = map[status.Code]codeRow{
	status.OK:                 {status.OK, eNo},
	status.Cancelled:          {status.Cancelled, eCancel},
	status.Unknown:            {status.Unknown, eCancel},
	status.InvalidArgument:    {status.InvalidArgument, eCancel},
	status.DeadlineExceeded:   {status.DeadlineExceeded, eCancel},
	status.NotFound:           {status.NotFound, eCancel},
	status.AlreadyExists:      {status.AlreadyExists, eCancel},
	status.PermissionDenied:   {status.PermissionDenied, eInadequateSecurity},
	status.ResourceExhausted:  {status.ResourceExhausted, eEnhanceYourCalm},
	status.FailedPrecondition: {status.FailedPrecondition, eCancel},
	status.Aborted:            {status.Aborted, eCancel},
	status.OutOfRange:         {status.OutOfRange, eCancel},
	status.Unimplemented:      {status.Unimplemented, eCancel},
	status.Internal:           {status.Internal, eInternal},
	status.Unavailable:        {status.Unavailable, eCancel},
	status.DataLoss:           {status.DataLoss, eInternal},
	status.Unauthenticated:    {status.Unauthenticated, eInadequateSecurity},
	status.Protocol:           {status.Internal, eProtocol},
	status.FlowControl:        {status.Internal, eFlowControl},
	status.FrameSize:          {status.Internal, eFrameSize},
	status.StreamState:        {status.Internal, eStreamClosed},
	status.Checksum:           {status.DataLoss, eInternal},
	status.EnhanceYourCalm:    {status.ResourceExhausted, eEnhanceYourCalm},
	status.TooLarge:           {status.ResourceExhausted, eCancel},
	status.Version:            {status.Unimplemented, eProtocol},
	status.HandshakeTimeout:   {status.Unavailable, eSettingsTimeout},
	status.GoingAway:          {status.Unavailable, eRefused},
	status.Refused:            {status.Unavailable, eRefused},
	status.IdleTimeout:        {status.Unavailable, eCancel},
	status.Keepalive:          {status.Unavailable, eInternal},
	status.WriteStall:         {status.Unavailable, eInternal},
	status.ConnectionLost:     {status.Unavailable, eInternal},
}

// StatusOf is the gRPC status that is sent for a code. Those of gRPC, an application's
// (from status.FirstAppCode on), and numbers that this program does not know, stay as they
// are.
func StatusOf(c status.Code) status.Code {
	if row, ok := codes[c]; ok {
		return row.grpc
	}
	return c
}

// errorOf is the error in an RST_STREAM or GOAWAY for a code.
func errorOf(c status.Code) http2Error {
	if row, ok := codes[c]; ok {
		return row.err
	}
	return eCancel
}

// statusOf is StatusOf, unless the peer knows our codes.
func (s *Session) statusOf(c status.Code) status.Code {
	if s.sluice {
		return c
	}
	return StatusOf(c)
}

// resetOf is the error in an RST_STREAM by which a client ends a stream with a code.
func (s *Session) resetOf(c status.Code) http2Error {
	switch {
	case s.sluice && c != status.OK && c != status.Cancelled && c <= maxSluiceCode:
		return sluiceError + http2Error(c)
	case isWire(c):
		return errorOf(c)
	}
	return eCancel
}

// isWire reports whether c is about HTTP/2's rules, which gRPC has no status for.
func isWire(c status.Code) bool { return c >= status.Protocol && c <= status.StreamState }

// ofHTTP is what an answer without a status of gRPC's means, by its HTTP status: the table
// of gRPC's http-grpc-status-mapping.md.
func ofHTTP(s int) status.Code {
	switch s {
	case 400:
		return status.Internal
	case 401:
		return status.Unauthenticated
	case 403:
		return status.PermissionDenied
	case 404:
		return status.Unimplemented
	case 429, 502, 503, 504:
		return status.Unavailable
	}
	return status.Unknown
}
