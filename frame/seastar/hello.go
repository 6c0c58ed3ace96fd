package seastar

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/sluicerpc/sluice/status"
)

// Limits of a hello. The wire has none.
const (
	helloLen   = len(magic) + 4
	maxHello   = 64 << 10 // bytes of records
	maxRecords = 32
	readStep   = 4 << 10 // bytes of one read, allocated before it
)

// A record is one feature of a hello.
type record struct {
	feature uint32
	data    string
}

func appendHello(b []byte, rs []record) []byte {
	n := 0
	for _, r := range rs {
		n += 8 + len(r.data)
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	for _, r := range rs {
		b = binary.LittleEndian.AppendUint32(b, r.feature)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.data)))
		b = append(b, r.data...)
	}
	return b
}

// readHello reads a hello, of which first has been read, and returns what was
// read beyond it.
func readHello(first []byte, r io.Reader) (rs []record, rest []byte, err error) {
	buf := append(make([]byte, 0, 512), first...)
	if buf, err = readUpTo(buf, r, helloLen); err != nil {
		return nil, nil, err
	}
	if string(buf[:len(magic)]) != magic {
		return nil, nil, failf(status.Protocol, "the hello begins with %q", buf[:len(magic)])
	}
	n := binary.LittleEndian.Uint32(buf[len(magic):])
	if n > maxHello {
		return nil, nil, failf(status.FrameSize, "a hello of %d bytes, limit %d", n, maxHello)
	}
	end := helloLen + int(n)
	if buf, err = readUpTo(buf, r, end); err != nil {
		return nil, nil, err
	}
	rs, err = parseRecords(buf[helloLen:end])
	return rs, buf[end:], err
}

// readUpTo reads until buf holds n bytes; memory grows with what has come.
func readUpTo(buf []byte, r io.Reader, n int) ([]byte, error) {
	var p []byte
	for len(buf) < n {
		if p == nil {
			p = make([]byte, min(n-len(buf), readStep))
		}
		k, err := r.Read(p[:min(n-len(buf), len(p))])
		buf = append(buf, p[:k]...)
		if k == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

func parseRecords(p []byte) (rs []record, err error) {
	for len(p) > 0 {
		if len(p) < 8 {
			return nil, failf(status.FrameSize, "a hello ends inside a record")
		}
		feature, n := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
		if p = p[8:]; uint64(n) > uint64(len(p)) {
			return nil, failf(status.FrameSize, "a record of %d bytes in the last %d of a hello", n, len(p))
		}
		if len(rs) == maxRecords {
			return nil, failf(status.EnhanceYourCalm, "more than %d records in a hello", maxRecords)
		}
		rs = append(rs, record{feature, string(p[:n])})
		p = p[n:]
	}
	return rs, nil
}

// find returns the data of a feature's first record.
func find(rs []record, feature uint32) (string, bool) {
	for _, r := range rs {
		if r.feature == feature {
			return r.data, true
		}
	}
	return "", false
}

func has(rs []record, feature uint32) bool {
	_, ok := find(rs, feature)
	return ok
}

func idData(id uint64) string { return string(binary.LittleEndian.AppendUint64(nil, id)) }

// idOf decodes a connection's ID.
func idOf(data string) (uint64, error) {
	if len(data) != 8 {
		return 0, failf(status.FrameSize, "connection ID of %d bytes, must be 8", len(data))
	}
	return binary.LittleEndian.Uint64([]byte(data)), nil
}
