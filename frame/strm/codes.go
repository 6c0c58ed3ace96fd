package strm

import (
	"math"
	"strconv"
	"strings"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
)

// Errors of brpc's (errno.proto) that rules of the session name.
const (
	eNoService = 1001
	eNoMethod  = 1002
	eRequest   = 1003
	eAuth      = 1004
	eInternal  = 2001
	eLogoff    = 2003
	eLimit     = 2004
)

// An errnoRow says what one error of brpc's means.
type errnoRow struct {
	errno        int
	name         string
	code         frame.Code
	notProcessed bool // no handler has seen the request: it is safe to retry
}

// errnos is every error with a code of its own: those of Linux that brpc's programs use,
// and brpc's. Other numbers below FirstAppCode are CodeUnknown; other numbers from
// FirstAppCode on are the application's.
var errnos = []errnoRow{
	{0, "OK", frame.CodeOK, false},
	{1, "EPERM", frame.CodePermissionDenied, false},
	{2, "ENOENT", frame.CodeNotFound, false},
	{5, "EIO", frame.CodeDataLoss, false},
	{6, "ENXIO", frame.CodeNotFound, false},
	{9, "EBADF", frame.CodeFailedPrecondition, false},
	{11, "EAGAIN", frame.CodeUnavailable, false},
	{12, "ENOMEM", frame.CodeResourceExhausted, false},
	{13, "EACCES", frame.CodePermissionDenied, false},
	{17, "EEXIST", frame.CodeAlreadyExists, false},
	{22, "EINVAL", frame.CodeInvalidArgument, false},
	{32, "EPIPE", frame.CodeConnectionLost, false},
	{34, "ERANGE", frame.CodeOutOfRange, false},
	{38, "ENOSYS", frame.CodeUnimplemented, false},
	{62, "ETIME", frame.CodeHandshakeTimeout, false},
	{71, "EPROTO", frame.CodeProtocol, false},
	{74, "EBADMSG", frame.CodeChecksum, false},
	{90, "EMSGSIZE", frame.CodeTooLarge, false},
	{93, "EPROTONOSUPPORT", frame.CodeVersion, false},
	{95, "EOPNOTSUPP", frame.CodeUnimplemented, false},
	{102, "ENETRESET", frame.CodeConnectionLost, false},
	{103, "ECONNABORTED", frame.CodeAborted, false},
	{104, "ECONNRESET", frame.CodeAborted, false},
	{105, "ENOBUFS", frame.CodeResourceExhausted, false},
	{108, "ESHUTDOWN", frame.CodeGoingAway, false},
	{110, "ETIMEDOUT", frame.CodeDeadlineExceeded, false},
	{111, "ECONNREFUSED", frame.CodeUnavailable, false},
	{112, "EHOSTDOWN", frame.CodeUnavailable, false},
	{113, "EHOSTUNREACH", frame.CodeUnavailable, false},
	{121, "EREMOTEIO", frame.CodeUnknown, false},
	{122, "EDQUOT", frame.CodeEnhanceYourCalm, false},
	{125, "ECANCELED", frame.CodeCancelled, false},

	{eNoService, "ENOSERVICE", frame.CodeUnimplemented, true},
	{eNoMethod, "ENOMETHOD", frame.CodeUnimplemented, true},
	{eRequest, "EREQUEST", frame.CodeInvalidArgument, false},
	{eAuth, "ERPCAUTH", frame.CodeUnauthenticated, false},
	{1005, "ETOOMANYFAILS", frame.CodeUnavailable, false},
	{1006, "EPCHANFINISH", frame.CodeInternal, false},
	{1007, "EBACKUPREQUEST", frame.CodeInternal, false},
	{1008, "ERPCTIMEDOUT", frame.CodeDeadlineExceeded, false},
	{1009, "EFAILEDSOCKET", frame.CodeConnectionLost, false},
	{1010, "EHTTP", frame.CodeInternal, false},
	{1011, "EOVERCROWDED", frame.CodeResourceExhausted, true},
	{1012, "ERTMPPUBLISHABLE", frame.CodeInternal, false},
	{1013, "ERTMPCREATESTREAM", frame.CodeInternal, false},
	{1014, "EEOF", frame.CodeConnectionLost, false},
	{1015, "EUNUSED", frame.CodeUnavailable, false},
	{1016, "ESSL", frame.CodeUnavailable, false},
	{1017, "EH2RUNOUTSTREAMS", frame.CodeResourceExhausted, false},
	{1018, "EREJECT", frame.CodeUnavailable, false},
	{1019, "EPROGREADTIMEOUT", frame.CodeDeadlineExceeded, false},
	{eInternal, "EINTERNAL", frame.CodeInternal, false},
	{2002, "ERESPONSE", frame.CodeInternal, false},
	{eLogoff, "ELOGOFF", frame.CodeGoingAway, true},
	{eLimit, "ELIMIT", frame.CodeRefused, true},
	{2005, "ECLOSE", frame.CodeUnavailable, false},
	{2006, "EITP", frame.CodeInternal, false},
	{2007, "ESHUTDOWNWRITE", frame.CodeConnectionLost, false},
	{3001, "ERDMA", frame.CodeInternal, false},
	{3002, "ERDMAMEM", frame.CodeInternal, false},
}

// A codeRow says what a code becomes if a handler may have seen the request, and if none
// has. The second is an error after which brpc's clients retry, where one fits. The first
// never is: those of retry_policy.cpp are 2, 32, 61, 104, 110, 111, 112, 1009, 1011, 1014,
// 1017, 2003 and 2004.
type codeRow struct{ errno, notProcessed int }

var codes = map[frame.Code]codeRow{
	frame.CodeOK:                 {0, 0},
	frame.CodeCancelled:          {125, 125},
	frame.CodeUnknown:            {121, 121},
	frame.CodeInvalidArgument:    {22, 22},
	frame.CodeDeadlineExceeded:   {1008, 1008},
	frame.CodeNotFound:           {6, 6},
	frame.CodeAlreadyExists:      {17, 17},
	frame.CodePermissionDenied:   {13, 13},
	frame.CodeResourceExhausted:  {105, 1011},
	frame.CodeFailedPrecondition: {9, 9},
	frame.CodeAborted:            {103, 103},
	frame.CodeOutOfRange:         {34, 34},
	frame.CodeUnimplemented:      {38, eNoMethod},
	frame.CodeInternal:           {eInternal, eInternal},
	frame.CodeUnavailable:        {11, 112},
	frame.CodeDataLoss:           {5, 5},
	frame.CodeUnauthenticated:    {eAuth, eAuth},
	frame.CodeProtocol:           {71, 71},
	frame.CodeFlowControl:        {71, 71},
	frame.CodeFrameSize:          {71, 71},
	frame.CodeStreamState:        {71, 71},
	frame.CodeChecksum:           {74, 74},
	frame.CodeEnhanceYourCalm:    {122, 122},
	frame.CodeTooLarge:           {90, 90},
	frame.CodeVersion:            {93, 93},
	frame.CodeHandshakeTimeout:   {62, 62},
	frame.CodeGoingAway:          {108, eLogoff},
	frame.CodeRefused:            {105, eLimit},
	frame.CodeIdleTimeout:        {1008, 1008},
	frame.CodeKeepalive:          {102, 1009},
	frame.CodeWriteStall:         {102, 1009},
	frame.CodeConnectionLost:     {102, 1009},
}

// codeRST is the code of a stream that the peer has reset: brpc's RST carries none.
const codeRST = frame.CodeAborted

// Errno is the brpc error that is sent for code, when a handler has seen the request.
// Codes from FirstAppCode on are sent unchanged.
func Errno(code frame.Code) int { return errnoOf(code, false) }

func errnoOf(code frame.Code, notProcessed bool) int {
	row, ok := codes[code]
	switch {
	case ok && notProcessed:
		return row.notProcessed
	case ok:
		return row.errno
	case code >= frame.FirstAppCode && code <= math.MaxInt32:
		return int(code)
	}
	return codes[frame.CodeUnknown].errno
}

// CodeOf is the code for an error that a brpc peer has sent.
func CodeOf(errno int) frame.Code {
	code, _ := meaning(errno)
	return code
}

// meaning also reports whether the error says that no handler has seen the request.
func meaning(errno int) (code frame.Code, notProcessed bool) {
	if row, ok := rowOf(errno); ok {
		return row.code, row.notProcessed
	}
	if errno >= int(frame.FirstAppCode) {
		return frame.Code(errno), false
	}
	return frame.CodeUnknown, false
}

// rowOf looks errno up; the table is short, and errors are few.
func rowOf(errno int) (errnoRow, bool) {
	for _, r := range errnos {
		if r.errno == errno {
			return r, true
		}
	}
	return errnoRow{}, false
}

// errorText is error_text as brpc's servers write it, without their address in front.
func errorText(errno int, reason string) string {
	return "[E" + strconv.Itoa(errno) + "]" + cut(reason)
}

// reasonOf removes the prefix that errorText adds, but not one that follows an address,
// which brpc's servers write.
func reasonOf(errno int, text []byte) string {
	s := cut(string(text))
	return strings.TrimPrefix(s, "[E"+strconv.Itoa(errno)+"]")
}

func cut(s string) string { return errtext.Clip(s, maxReason) }
