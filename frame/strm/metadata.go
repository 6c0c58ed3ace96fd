package strm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Keys of metadata that stand for fields of RpcMeta. On a message that was received they
// are the fields of its packet; on one that is sent they say how to pack it. None is sent
// as a user field, and user fields with these names are dropped.
const (
	// KeyAttachmentSize tells how many bytes at the message's end are its
	// attachment, in decimal.
	KeyAttachmentSize = "brpc-attachment-size"
	// KeyCompress is "none", "gzip", "zlib" or "snappy". The attachment is not
	// compressed.
	KeyCompress = "brpc-compress"
	// KeyChecksum is "none" or "crc32c".
	KeyChecksum = "brpc-checksum"
	// KeyContentType is "pb", "json", "proto-json" or "proto-text".
	KeyContentType = "brpc-content-type"

	// KeyLogID and the three after it are numbers of a request, in decimal;
	// KeyRequestID is any text.
	KeyLogID        = "brpc-log-id"
	KeyTraceID      = "brpc-trace-id"
	KeySpanID       = "brpc-span-id"
	KeyParentSpanID = "brpc-parent-span-id"
	KeyRequestID    = "brpc-request-id"
)

// logKeys are the keys of rpcMeta.log.
var logKeys = [4]string{KeyLogID, KeyTraceID, KeySpanID, KeyParentSpanID}

func reserved(key string) bool {
	switch key {
	case KeyAttachmentSize, KeyCompress, KeyChecksum, KeyContentType,
		KeyLogID, KeyTraceID, KeySpanID, KeyParentSpanID, KeyRequestID:
		return true
	}
	return false
}

// packOptions is how a message is to be packed.
type packOptions struct {
	attachment                  int
	compress, checksum, content int32
	log                         [4]int64
	hasLog                      [4]bool
	requestID                   string
	packed                      bool // the message is compressed already

	// What the session adds.
	settings bool
	source   int64 // of the frame that the packet travels in
	auth     []byte
	sum      []byte
}

// read sets the options that md has keys for.
func (w *packOptions) read(md metadata.MD) error {
	for i := range md {
		if strings.HasPrefix(md[i].Key, "brpc-") {
			if err := w.field(md[i].Key, md[i].Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// message sets the options that a call's message has: that Pack has compressed it.
func (w *packOptions) message(m pool.Message) error {
	switch {
	case !pool.IsPacked(m):
		return nil
	case w.attachment > 0 || w.compress != compressNone:
		return codef(status.InvalidArgument, "a call with an option for its compression has neither %s nor %s", KeyAttachmentSize, KeyCompress)
	}
	w.compress, w.packed = compressGzip, true
	return nil
}

func (w *packOptions) field(key, value string) (err error) {
	switch key {
	case KeyAttachmentSize:
		w.attachment, err = strconv.Atoi(value)
		if err == nil && w.attachment < 0 {
			err = strconv.ErrRange
		}
	case KeyCompress:
		w.compress, err = valueOf(compressNames, value)
	case KeyChecksum:
		w.checksum, err = valueOf(checksumNames, value)
	case KeyContentType:
		w.content, err = valueOf(contentNames, value)
	case KeyRequestID:
		w.requestID = value
	default:
		if i := slices.Index(logKeys[:], key); i >= 0 {
			w.log[i], err = strconv.ParseInt(value, 10, 64)
			w.hasLog[i] = true
		}
	}
	if err != nil {
		return fmt.Errorf("metadata %s: %q: %w", key, value, err)
	}
	return nil
}

func valueOf(names []string, name string) (int32, error) {
	if i := slices.Index(names, name); i >= 0 {
		return int32(i), nil
	}
	return 0, fmt.Errorf("must be one of %s", strings.Join(names, ", "))
}

// metadata is a packet's meta as a handler or caller sees it.
func (m *rpcMeta) metadata() metadata.MD {
	n := len(m.fields)
	for i := range m.hasLog {
		if m.hasLog[i] {
			n++
		}
	}
	for _, has := range []bool{m.attachment > 0, m.compress != 0, m.checksum != 0, m.content != 0, len(m.requestID) > 0} {
		if has {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	md := make(metadata.MD, 0, n)
	for _, u := range m.fields {
		if key := keyOf(u.key); !reserved(key) {
			md = append(md, metadata.Field{Key: key, Value: string(u.value)})
		}
	}
	return m.describe(md)
}

// describe adds the keys that stand for fields of the meta.
func (m *rpcMeta) describe(md metadata.MD) metadata.MD {
	for i, has := range m.hasLog {
		if has {
			md = append(md, metadata.Field{Key: logKeys[i], Value: strconv.FormatInt(m.log[i], 10)})
		}
	}
	if len(m.requestID) > 0 {
		md = append(md, metadata.Field{Key: KeyRequestID, Value: string(m.requestID)})
	}
	if m.attachment > 0 {
		md = append(md, metadata.Field{Key: KeyAttachmentSize, Value: strconv.Itoa(int(m.attachment))})
	}
	if m.compress != 0 {
		md = append(md, metadata.Field{Key: KeyCompress, Value: nameOf(compressNames, m.compress)})
	}
	if m.checksum != 0 {
		md = append(md, metadata.Field{Key: KeyChecksum, Value: nameOf(checksumNames, m.checksum)})
	}
	if m.content != 0 {
		md = append(md, metadata.Field{Key: KeyContentType, Value: nameOf(contentNames, m.content)})
	}
	return md
}

// keyOf makes a user field's key one of metadata's: lower case, and '_' for what
// a key can't have.
func keyOf(b []byte) string {
	plain := len(b) > 0
	for _, c := range b {
		plain = plain && keyByte(c) == c
	}
	if plain {
		return string(b)
	}
	if len(b) == 0 {
		return "_"
	}
	k := make([]byte, len(b))
	for i, c := range b {
		k[i] = keyByte(c)
	}
	return string(k)
}

func keyByte(c byte) byte {
	switch {
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		return c
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	}
	return '_'
}

// appendUserFields appends md as user_fields, which is a map.
func appendUserFields(b []byte, md metadata.MD) []byte {
	for i := range md {
		f := &md[i]
		if reserved(f.Key) {
			continue
		}
		b = protowire.AppendTag(b, fUserFields, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeBytes(len(f.Key))+sizeBytes(len(f.Value))))
		b = appendBytes(b, 1, f.Key)
		b = appendBytes(b, 2, f.Value)
	}
	return b
}

// sizeBytes is the size of a field of n bytes with a number below 16.
func sizeBytes(n int) int { return 1 + protowire.SizeBytes(n) }
