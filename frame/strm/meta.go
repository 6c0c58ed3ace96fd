package strm

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// rpcMeta is RpcMeta. Strings and lists of a parsed one alias the input.
type rpcMeta struct {
	isRequest, isResponse bool

	// RpcRequestMeta
	service, method []byte
	log             [4]int64 // log_id, trace_id, span_id, parent_span_id
	hasLog          [4]bool
	requestID       []byte
	timeout         int32 // milliseconds

	// RpcResponseMeta
	errno int32
	text  []byte

	compress    int32
	correlation int64
	attachment  int32 // bytes
	auth        []byte
	hasSettings bool
	settings    settings
	fields      []userField // all of them, or none if they are too large
	size, most  int         // their size as metadata.MD counts, and its limit, bytes
	content     int32
	checksum    int32
	sum         []byte
	sumAll      bool // the sum covers the attachment too
}

type userField struct{ key, value []byte }

// settings is StreamSettings.
type settings struct {
	hasID              bool
	id                 int64
	feedback, writable bool
	extra              []int64 // at most maxGroup of them
	count              int     // how many there were
}

// Field numbers of RpcMeta.
const (
	fRequest     = 1
	fResponse    = 2
	fCompress    = 3
	fCorrelation = 4
	fAttachment  = 5
	fAuth        = 7
	fSettings    = 8
	fUserFields  = 9
	fContent     = 10
	fChecksum    = 11
	fSum         = 12
	fSumAll      = 13
)

// Field numbers of RpcRequestMeta.
const (
	fService   = 1
	fMethod    = 2
	fLogID     = 3 // and trace_id 4, span_id 5, parent_span_id 6
	fRequestID = 7
	fTimeout   = 8
)

// Field numbers of RpcResponseMeta.
const (
	fErrorCode = 1
	fErrorText = 2
)

// Field numbers of StreamSettings.
const (
	fID           = 1
	fNeedFeedback = 2
	fWritable     = 3
	fExtra        = 4
)

// reset empties m and keeps some of its memory.
func (m *rpcMeta) reset() {
	clear(m.fields)
	*m = rpcMeta{
		most: m.most, fields: reuse(m.fields, keptFields),
		settings: settings{extra: reuse(m.settings.extra, keptFields)},
	}
}

// omitted is the size of the user fields if they were too large to keep, else 0.
func (m *rpcMeta) omitted() int {
	if m.size > m.most {
		return m.size
	}
	return 0
}

func (m *rpcMeta) parse(p []byte) error {
	m.reset()
	err := eachField(p, func(num protowire.Number, v uint64, b []byte) error {
		if b != nil {
			return m.message(num, b)
		}
		m.number(num, v)
		return nil
	})
	switch {
	case err != nil:
		return err
	case m.isRequest && (m.service == nil || m.method == nil):
		return failf("a request without service_name or method_name")
	case m.hasSettings && !m.settings.hasID:
		return failf("stream_settings without stream_id")
	}
	return nil
}

func (m *rpcMeta) number(num protowire.Number, v uint64) {
	switch num {
	case fCompress:
		m.compress = int32(v)
	case fCorrelation:
		m.correlation = int64(v)
	case fAttachment:
		m.attachment = int32(v)
	case fContent:
		m.content = int32(v)
	case fChecksum:
		m.checksum = int32(v)
	case fSumAll:
		m.sumAll = v != 0
	}
}

func (m *rpcMeta) message(num protowire.Number, b []byte) error {
	switch num {
	case fRequest:
		m.isRequest = true
		return eachField(b, m.requestField)
	case fResponse:
		m.isResponse = true
		return eachField(b, m.responseField)
	case fAuth:
		m.auth = b
	case fSettings:
		m.hasSettings = true
		return eachField(b, m.settings.field)
	case fUserFields:
		return m.userField(b)
	case fSum:
		m.sum = b
	}
	return nil
}

func (m *rpcMeta) requestField(num protowire.Number, v uint64, b []byte) error {
	switch {
	case b != nil && num == fService:
		m.service = b
	case b != nil && num == fMethod:
		m.method = b
	case b != nil && num == fRequestID:
		m.requestID = b
	case b != nil:
	case num >= fLogID && num < fLogID+4:
		m.log[num-fLogID], m.hasLog[num-fLogID] = int64(v), true
	case num == fTimeout:
		m.timeout = int32(v)
	}
	return nil
}

func (m *rpcMeta) responseField(num protowire.Number, v uint64, b []byte) error {
	switch {
	case b == nil && num == fErrorCode:
		m.errno = int32(v)
	case b != nil && num == fErrorText:
		m.text = b
	}
	return nil
}

func (m *rpcMeta) userField(b []byte) error {
	var u userField
	err := eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
		switch {
		case b == nil:
		case num == 1:
			u.key = b
		case num == 2:
			u.value = b
		}
		return nil
	})
	m.size += len(u.key) + len(u.value) + 32
	if m.size > m.most { // before the field takes memory
		m.fields = m.fields[:0]
		return err
	}
	m.fields = append(m.fields, u)
	return err
}

func (s *settings) field(num protowire.Number, v uint64, b []byte) error {
	switch {
	case b != nil && num == fExtra: // packed
		return s.packed(b)
	case b != nil:
	case num == fID:
		s.id, s.hasID = int64(v), true
	case num == fNeedFeedback:
		s.feedback = v != 0
	case num == fWritable:
		s.writable = v != 0
	case num == fExtra:
		s.add(v)
	}
	return nil
}

func (s *settings) packed(b []byte) error {
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return fmt.Errorf("extra_stream_ids: %w", protowire.ParseError(n))
		}
		s.add(v)
		b = b[n:]
	}
	return nil
}

func (s *settings) add(v uint64) {
	if s.count++; len(s.extra) < maxGroup {
		s.extra = append(s.extra, int64(v))
	}
}

// appendSettings appends stream_settings; the further streams are numbered from
// id upwards, as the kernel numbers them.
func appendSettings(b []byte, id uint64, n int, feedback, writable bool) []byte {
	size := 1 + protowire.SizeVarint(id) + 4
	for i := 1; i < n; i++ {
		size += 1 + protowire.SizeVarint(id+2*uint64(i))
	}
	b = protowire.AppendTag(b, fSettings, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendVarint(b, fID, id)
	b = appendVarint(b, fNeedFeedback, protowire.EncodeBool(feedback))
	b = appendVarint(b, fWritable, protowire.EncodeBool(writable))
	for i := 1; i < n; i++ {
		b = appendVarint(b, fExtra, id+2*uint64(i))
	}
	return b
}
