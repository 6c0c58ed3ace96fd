package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/internal/errtext"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// What control frames may hold.
const (
	maxSettings = 32       // settings in a Hello
	maxGroup    = 256      // streams that one Open opens
	grantSize   = 16       // bytes that the grant of a further stream takes of a frame, at most
	maxMetadata = 48 << 10 // bytes that fit into a frame beside a request or reply
	maxGrant    = 1 << 31  // credit at a stream's start
	maxReason   = 1 << 10  // bytes of a reason; a longer one is cut
)

// Keys of the settings in a Hello.
const (
	setVersions = iota + 1
	setChecksum
	setMaxFragment
	setMaxMessage
	setMaxStreams
	setMaxMetadata
	setInitialCredit
	setConnCredit
	setToken
	setCompression
	setRefusals
)

// checksumCRC32C is the only kind of checksum; 0 is none.
const checksumCRC32C = 1

func appendControl(b []byte, f *frame.Frame) (_ []byte, flags byte) {
	switch f.Kind {
	case frame.Open:
		return appendOpen(b, f), follows(f)
	case frame.Accept:
		b = appendGrants(b, f.Grants)
		b = appendMetadata(b, f.Metadata)
		return append(b, f.Payload...), follows(f)
	case frame.Reject:
		if f.NotProcessed {
			flags = fNotProcessed
		}
		if b = appendReason(b, f); len(f.Metadata) > 0 {
			b = appendMetadata(b, f.Metadata)
		}
		return b, flags
	case frame.EOS:
		if f.Code == status.OK && f.Reason == "" && len(f.Metadata) == 0 {
			return b, 0
		}
		return appendMetadata(appendReason(b, f), f.Metadata), 0
	case frame.Reset:
		return appendReason(b, f), 0
	case frame.Stop:
		return binary.AppendUvarint(b, uint64(f.Code)), 0
	case frame.Ended:
		return binary.AppendUvarint(b, f.Value), 0
	case frame.Credit, frame.Read, frame.Ping:
		return binary.LittleEndian.AppendUint64(b, f.Value), 0
	case frame.Pong:
		return binary.LittleEndian.AppendUint64(b, f.Value), fPong
	case frame.GoAway:
		return appendReason(binary.AppendUvarint(b, f.Value), f), 0
	case frame.Hello:
		return appendSettings(b, &f.Settings), 0
	}
	return b, 0
}

func follows(f *frame.Frame) byte {
	if f.FollowsData {
		return fFollows
	}
	return 0
}

func appendOpen(b []byte, f *frame.Frame) []byte {
	b = appendGrants(b, f.Grants)
	b = binary.AppendUvarint(b, uint64(f.Deadline/time.Microsecond))
	b = appendString(b, f.Method)
	b = appendMetadata(b, f.Metadata)
	return append(b, f.Payload...)
}

func appendGrants(b []byte, gs []frame.Grant) []byte {
	b = binary.AppendUvarint(b, uint64(len(gs)))
	for _, g := range gs {
		v := g.Credit << 1
		if g.NoReceive {
			v |= 1
		}
		b = binary.AppendUvarint(b, v)
		b = binary.AppendUvarint(b, g.Limit)
	}
	return b
}

func appendMetadata(b []byte, md metadata.MD) []byte {
	b = binary.AppendUvarint(b, uint64(len(md)))
	for _, f := range md {
		b = appendString(appendString(b, f.Key), f.Value)
	}
	return b
}

// appendReason cuts a text that is too long for a frame. Inlined four times into
// appendControl it would enlarge the stack of every goroutine that flushes.
//
//go:noinline
func appendReason(b []byte, f *frame.Frame) []byte {
	return appendString(binary.AppendUvarint(b, uint64(f.Code)), errtext.Clip(f.Reason, maxReason))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSettings(b []byte, s *frame.Settings) []byte {
	b = appendSetting(b, setVersions, s.MinVersion, s.MaxVersion)
	if s.Checksum {
		b = appendSetting(b, setChecksum, checksumCRC32C)
	}
	b = appendSetting(b, setMaxFragment, s.MaxFragment)
	b = appendSetting(b, setMaxMessage, s.MaxMessage)
	b = appendSetting(b, setMaxStreams, s.MaxStreams)
	b = appendSetting(b, setMaxMetadata, s.MaxMetadata)
	b = appendSetting(b, setInitialCredit, s.InitialCredit)
	b = appendSetting(b, setConnCredit, s.ConnCredit)
	if len(s.Token) > 0 {
		b = binary.AppendUvarint(b, setToken)
		b = appendString(b, string(s.Token))
	}
	if s.Compression != 0 {
		b = appendSetting(b, setCompression, compressionBits(s.Compression))
	}
	if s.RefusalMetadata {
		b = appendSetting(b, setRefusals, 1)
	}
	return b
}

func appendSetting(b []byte, key uint64, values ...uint64) []byte {
	var v []byte
	for _, value := range values {
		v = binary.AppendUvarint(v, value)
	}
	b = binary.AppendUvarint(b, key)
	b = append(b, byte(len(v)))
	return append(b, v...)
}

var (
	errVarint   = errors.New("a varint that is too long or not the shortest")
	errShort    = errors.New("the payload ends too early")
	errTrailing = errors.New("bytes after the end of the payload")
)

// A cursor reads a control frame's payload; its first error sticks.
type cursor struct {
	p   []byte
	err error
}

func (c *cursor) uint() uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.p)
	switch {
	case n == 0:
		c.err = errShort
	case n < 0 || n > 1 && c.p[n-1] == 0:
		c.err = errVarint
	default:
		c.p = c.p[n:]
		return v
	}
	return 0
}

func (c *cursor) bytes() []byte {
	n := c.uint()
	if c.err == nil && n > uint64(len(c.p)) {
		c.err = errShort
	}
	if c.err != nil {
		return nil
	}
	b := c.p[:n]
	c.p = c.p[n:]
	return b
}

func (c *cursor) fixed64() uint64 {
	v := binary.LittleEndian.Uint64(c.p)
	c.p = c.p[8:]
	return v
}

// metadata reads the fields into f, or only their size if that is more than most: a field
// of two bytes on the wire takes 32 of memory.
func (c *cursor) metadata(f *frame.Frame, most int) {
	f.Metadata, f.Omitted = nil, 0
	n := c.uint()
	if c.err == nil && n > uint64(len(c.p))/2 {
		c.err = errShort
	}
	if c.err != nil || n == 0 {
		return
	}
	fields, size := *c, 0
	for range n {
		size += len(c.bytes()) + len(c.bytes()) + 32
	}
	switch {
	case c.err != nil:
		return
	case size > most:
		f.Omitted = size
		return
	}
	f.Metadata = make(metadata.MD, n)
	all := string(fields.p[:len(fields.p)-len(c.p)]) // all keys and values cost one allocation
	part := func() string {
		n := len(fields.bytes())
		end := len(all) - (len(fields.p) - len(c.p))
		return all[end-n : end]
	}
	for i := range f.Metadata {
		f.Metadata[i] = metadata.Field{Key: part(), Value: part()}
	}
}

func (c *cursor) grants(gs []frame.Grant) []frame.Grant {
	n := c.uint()
	if c.err == nil && (n == 0 || n > maxGroup) {
		c.err = fmt.Errorf("%d streams in one request, must be 1 to %d", n, maxGroup)
	}
	gs = gs[:0]
	for ; c.err == nil && n > 0; n-- {
		v := c.uint()
		if v>>1 > maxGrant {
			c.err = failf(status.FlowControl, "credit of %d at the start of a stream", v>>1)
		}
		gs = append(gs, frame.Grant{Credit: v >> 1, NoReceive: v&1 != 0, Limit: c.uint()})
	}
	return gs
}

func (c *cursor) rest() []byte {
	p := c.p
	c.p = nil
	return p
}

func (c *cursor) reason(f *frame.Frame) {
	f.Code = status.Code(c.uint())
	text := c.bytes()
	f.Reason = string(text[:min(len(text), maxReason)])
}

// control decodes a complete payload into f, whose Kind is set. Metadata of more
// than most bytes is left out.
func control(p []byte, flags byte, f *frame.Frame, most int) error {
	c := cursor{p: p}
	switch f.Kind {
	case frame.Open:
		f.FollowsData = flags&fFollows != 0
		f.Grants = c.grants(f.Grants)
		f.Deadline = deadline(c.uint())
		f.Method = string(c.bytes())
		c.metadata(f, most)
		f.Payload = c.rest()
	case frame.Accept:
		f.FollowsData = flags&fFollows != 0
		f.Grants = c.grants(f.Grants)
		c.metadata(f, most)
		f.Payload = c.rest()
	case frame.Reject:
		f.NotProcessed = flags&fNotProcessed != 0
		c.reason(f)
		f.Metadata, f.Omitted = nil, 0
		if len(c.p) > 0 {
			c.metadata(f, most)
		}
	case frame.EOS:
		f.Code, f.Reason, f.Metadata, f.Omitted = status.OK, "", nil, 0
		if len(p) > 0 {
			c.reason(f)
			c.metadata(f, most)
		}
	case frame.Reset:
		c.reason(f)
	case frame.Stop:
		f.Code = status.Code(c.uint())
	case frame.Ended:
		f.Value = c.uint()
	case frame.Credit, frame.Read:
		f.Value = c.fixed64()
	case frame.Ping:
		f.Value = c.fixed64()
		if flags&fPong != 0 {
			f.Kind = frame.Pong
		}
	case frame.GoAway:
		f.Value = c.uint()
		c.reason(f)
	case frame.Hello:
		settings(&c, &f.Settings)
	}
	if c.err == nil && len(c.p) > 0 {
		c.err = errTrailing
	}
	return c.err
}

// deadline bounds a peer's time left, so that no sum with it overflows.
func deadline(us uint64) time.Duration {
	const most = 365 * 24 * time.Hour
	return time.Duration(min(us, uint64(most/time.Microsecond))) * time.Microsecond
}

var errSettings = errors.New("too many settings")

func settings(c *cursor, s *frame.Settings) {
	*s = frame.Settings{}
	for n := 0; c.err == nil && len(c.p) > 0; n++ {
		if n == maxSettings {
			c.err = errSettings
			return
		}
		setting(c, s)
	}
}

// setting reads one setting. It ignores one that it does not know: a newer peer's.
func setting(c *cursor, s *frame.Settings) {
	key := c.uint()
	v := cursor{p: c.bytes(), err: c.err}
	switch key {
	case setVersions:
		s.MinVersion, s.MaxVersion = v.uint(), v.uint()
	case setChecksum:
		s.Checksum = v.checksum()
	case setMaxFragment:
		s.MaxFragment = v.uint()
	case setMaxMessage:
		s.MaxMessage = v.uint()
	case setMaxStreams:
		s.MaxStreams = v.uint()
	case setMaxMetadata:
		s.MaxMetadata = v.uint()
	case setInitialCredit:
		s.InitialCredit = v.uint()
	case setConnCredit:
		s.ConnCredit = v.uint()
	case setToken:
		s.Token = append([]byte(nil), v.rest()...)
	case setCompression:
		s.Compression = compressionsOf(v.uint())
	case setRefusals:
		s.RefusalMetadata = v.uint() != 0
	default:
		v.rest()
	}
	if v.err == nil && len(v.p) > 0 {
		v.err = errTrailing
	}
	if c.err == nil && v.err != nil {
		c.err = fmt.Errorf("setting %d: %w", key, v.err)
	}
}

// checksum reads a kind of checksum.
func (c *cursor) checksum() bool {
	kind := c.uint()
	if c.err == nil && kind > checksumCRC32C {
		c.err = fmt.Errorf("unknown kind of checksum %d", kind)
	}
	return kind == checksumCRC32C
}
