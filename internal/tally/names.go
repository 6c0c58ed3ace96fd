package tally

import (
	"strings"
	"sync"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// Other is the name of methods and codes that are counted together.
const Other = "_OTHER"

// Methods bounds how many names of methods are told apart, since a peer chooses those that it
// opens. It may be used by several goroutines.
type Methods struct {
	most int

	mu    sync.Mutex
	known map[string]string // a method's name, as it is exported
}

// NewMethods returns Methods that know most names at most.
func NewMethods(most int) *Methods {
	return &Methods{most: most, known: map[string]string{}}
}

// Name returns the name of a stream's method, valid UTF-8, or Other. i is its last Snapshot. A name
// that a peer has chosen becomes known when a handler has accepted or refused such a stream, so a
// peer can't fill the table with methods that nobody serves.
func (m *Methods) Name(s *kernel.Stream, i *kernel.StreamInfo) string {
	return m.name(i.Method, i.Opener || i.Latency > 0 || refusedByHandler(s.Err(), i.Code))
}

// refusedByHandler reports whether a handler must have refused a stream that nobody has accepted.
func refusedByHandler(failure error, c status.Code) bool {
	if failure != nil { // this side's refusal is no failure here
		return false
	}
	switch c {
	case status.OK, status.Unimplemented, status.ResourceExhausted, status.Refused, status.TooLarge:
		return false // the library says these too, before it looks for a handler
	}
	return true
}

func (m *Methods) name(method string, served bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name, ok := m.known[method]; ok {
		return name
	}
	if !served || len(m.known) >= m.most {
		return Other
	}
	name := strings.ToValidUTF8(method, "\uFFFD")
	m.known[strings.Clone(method)] = name
	return name
}

// Code returns a code's name, or Other for those that neither the library nor the program has
// named: a peer can make up four billion of them.
func Code(c status.Code) string {
	if name := c.String(); !strings.HasPrefix(name, "CODE_") {
		return name
	}
	return Other
}

// Failed reports whether a stream with a code counts as an error. On its opener's side each code
// but OK does. On the other side the codes do that gRPC's conventions name, and those that the
// library has beside them: what a client may do, such as to ask for what is not there or to
// cancel, is no fault of the server's.
func Failed(opener bool, c status.Code) bool {
	switch c {
	case status.OK:
		return false
	case status.Unknown, status.DeadlineExceeded, status.Unimplemented, status.Internal, status.Unavailable, status.DataLoss:
		return true
	}
	return opener || c >= status.Protocol && c < status.FirstAppCode && c != status.GoingAway
}
