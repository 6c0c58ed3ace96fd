package strm

import (
	"math"
	"strconv"
	"strings"

	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/status"
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
	code         status.Code
	notProcessed bool // no handler has seen the request: it is safe to retry
}

// errnos is every error with a code of its own: those of Linux that brpc's programs use,
// and brpc's. Other numbers below FirstAppCode are status.Unknown; other numbers from
// FirstAppCode on are the application's.
var errnos = []errnoRow{
	{0, "OK", status.OK, false},
	{1, "EPERM", status.PermissionDenied, false},
	{2, "ENOENT", status.NotFound, false},
	{5, "EIO", status.DataLoss, false},
	{6, "ENXIO", status.NotFound, false},
	{9, "EBADF", status.FailedPrecondition, false},
	{11, "EAGAIN", status.Unavailable, false},
	{12, "ENOMEM", status.ResourceExhausted, false},
	{13, "EACCES", status.PermissionDenied, false},
	{17, "EEXIST", status.AlreadyExists, false},
	{22, "EINVAL", status.InvalidArgument, false},
	{32, "EPIPE", status.ConnectionLost, false},
	{34, "ERANGE", status.OutOfRange, false},
	{38, "ENOSYS", status.Unimplemented, false},
	{62, "ETIME", status.HandshakeTimeout, false},
	{71, "EPROTO", status.Protocol, false},
	{74, "EBADMSG", status.Checksum, false},
	{90, "EMSGSIZE", status.TooLarge, false},
	{93, "EPROTONOSUPPORT", status.Version, false},
	{95, "EOPNOTSUPP", status.Unimplemented, false},
	{102, "ENETRESET", status.ConnectionLost, false},
	{103, "ECONNABORTED", status.Aborted, false},
	{104, "ECONNRESET", status.Aborted, false},
	{105, "ENOBUFS", status.ResourceExhausted, false},
	{108, "ESHUTDOWN", status.GoingAway, false},
	{110, "ETIMEDOUT", status.DeadlineExceeded, false},
	{111, "ECONNREFUSED", status.Unavailable, false},
	{112, "EHOSTDOWN", status.Unavailable, false},
	{113, "EHOSTUNREACH", status.Unavailable, false},
	{121, "EREMOTEIO", status.Unknown, false},
	{122, "EDQUOT", status.EnhanceYourCalm, false},
	{125, "ECANCELED", status.Cancelled, false},

	{eNoService, "ENOSERVICE", status.Unimplemented, true},
	{eNoMethod, "ENOMETHOD", status.Unimplemented, true},
	{eRequest, "EREQUEST", status.InvalidArgument, false},
	{eAuth, "ERPCAUTH", status.Unauthenticated, false},
	{1005, "ETOOMANYFAILS", status.Unavailable, false},
	{1006, "EPCHANFINISH", status.Internal, false},
	{1007, "EBACKUPREQUEST", status.Internal, false},
	{1008, "ERPCTIMEDOUT", status.DeadlineExceeded, false},
	{1009, "EFAILEDSOCKET", status.ConnectionLost, false},
	{1010, "EHTTP", status.Internal, false},
	{1011, "EOVERCROWDED", status.ResourceExhausted, true},
	{1012, "ERTMPPUBLISHABLE", status.Internal, false},
	{1013, "ERTMPCREATESTREAM", status.Internal, false},
	{1014, "EEOF", status.ConnectionLost, false},
	{1015, "EUNUSED", status.Unavailable, false},
	{1016, "ESSL", status.Unavailable, false},
	{1017, "EH2RUNOUTSTREAMS", status.ResourceExhausted, false},
	{1018, "EREJECT", status.Unavailable, false},
	{1019, "EPROGREADTIMEOUT", status.DeadlineExceeded, false},
	{eInternal, "EINTERNAL", status.Internal, false},
	{2002, "ERESPONSE", status.Internal, false},
	{eLogoff, "ELOGOFF", status.GoingAway, true},
	{eLimit, "ELIMIT", status.Refused, true},
	{2005, "ECLOSE", status.Unavailable, false},
	{2006, "EITP", status.Internal, false},
	{2007, "ESHUTDOWNWRITE", status.ConnectionLost, false},
	{3001, "ERDMA", status.Internal, false},
	{3002, "ERDMAMEM", status.Internal, false},
}

// A codeRow says what a code becomes if a handler may have seen the request, and if none
// has. The second is an error after which brpc's clients retry, where one fits. The first
// never is: those of retry_policy.cpp are 2, 32, 61, 104, 110, 111, 112, 1009, 1011, 1014,
// 1017, 2003 and 2004.
type codeRow struct{ errno, notProcessed int }

var codes = map[status.Code]codeRow{
	status.OK:                 {0, 0},
	status.Cancelled:          {125, 125},
	status.Unknown:            {121, 121},
	status.InvalidArgument:    {22, 22},
	status.DeadlineExceeded:   {1008, 1008},
	status.NotFound:           {6, 6},
	status.AlreadyExists:      {17, 17},
	status.PermissionDenied:   {13, 13},
	status.ResourceExhausted:  {105, 1011},
	status.FailedPrecondition: {9, 9},
	status.Aborted:            {103, 103},
	status.OutOfRange:         {34, 34},
	status.Unimplemented:      {38, eNoMethod},
	status.Internal:           {eInternal, eInternal},
	status.Unavailable:        {11, 112},
	status.DataLoss:           {5, 5},
	status.Unauthenticated:    {eAuth, eAuth},
	status.Protocol:           {71, 71},
	status.FlowControl:        {71, 71},
	status.FrameSize:          {71, 71},
	status.StreamState:        {71, 71},
	status.Checksum:           {74, 74},
	status.EnhanceYourCalm:    {122, 122},
	status.TooLarge:           {90, 90},
	status.Version:            {93, 93},
	status.HandshakeTimeout:   {62, 62},
	status.GoingAway:          {108, eLogoff},
	status.Refused:            {105, eLimit},
	status.IdleTimeout:        {1008, 1008},
	status.Keepalive:          {102, 1009},
	status.WriteStall:         {102, 1009},
	status.ConnectionLost:     {102, 1009},
}

// codeRST is the code of a stream that the peer has reset: brpc's RST carries none.
const codeRST = status.Aborted

// Errno is the brpc error that is sent for code, when a handler has seen the request.
// Codes from FirstAppCode on are sent unchanged.
func Errno(code status.Code) int { return errnoOf(code, false) }

func errnoOf(code status.Code, notProcessed bool) int {
	row, ok := codes[code]
	switch {
	case ok && notProcessed:
		return row.notProcessed
	case ok:
		return row.errno
	case code >= status.FirstAppCode && code <= math.MaxInt32:
		return int(code)
	}
	return codes[status.Unknown].errno
}

// CodeOf is the code for an error that a brpc peer has sent.
func CodeOf(errno int) status.Code {
	code, _ := meaning(errno)
	return code
}

// meaning also reports whether the error says that no handler has seen the request.
func meaning(errno int) (code status.Code, notProcessed bool) {
	if row, ok := rowOf(errno); ok {
		return row.code, row.notProcessed
	}
	if errno >= int(status.FirstAppCode) {
		return status.Code(errno), false
	}
	return status.Unknown, false
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
