package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"unsafe"

	"github.com/sluicerpc/sluice/pool"
)

// jsonCodec is JSON's.
type jsonCodec[T any] struct{}

func (jsonCodec[T]) signature() string { return "json" }

// Append implements Codec.
func (jsonCodec[T]) Append(b []byte, v T) ([]byte, error) {
	p, err := json.Marshal(v)
	return append(b, p...), err
}

// Decode implements Codec.
func (jsonCodec[T]) Decode(p []byte) (T, error) {
	var v T
	err := json.Unmarshal(p, &v)
	return v, err
}

// message implements maker.
func (jsonCodec[T]) message(v T) (pool.Message, error) {
	b, err := json.Marshal(v)
	switch {
	case err != nil:
		return pool.Message{}, err
	case len(b) > pool.MaxLen:
		return pool.Message{}, tooLong(v, len(b))
	case len(b) > copied:
		return pool.MessageOf(b), nil
	}
	return pool.Copy(b), nil
}

// copied is up to how many bytes it costs less to copy them into memory that messages
// share than to make a message of where they are.
const copied = 4 << 10

// jsonString is JSON's codec for strings, which package json reads and writes byte by byte:
// one of 64 KiB takes it 350 us both ways, where most stand for themselves.
type jsonString struct{ jsonCodec[string] }

// Append implements Codec.
func (c jsonString) Append(b []byte, v string) ([]byte, error) {
	if !isLiteral(bytesOf(v)) {
		return c.jsonCodec.Append(b, v)
	}
	return append(append(append(b, '"'), v...), '"'), nil
}

// Decode implements Codec.
func (c jsonString) Decode(p []byte) (string, error) {
	if n := len(p); n >= 2 && p[0] == '"' && p[n-1] == '"' && isLiteral(p[1:n-1]) {
		return string(p[1 : n-1]), nil
	}
	return c.jsonCodec.Decode(p)
}

// message implements maker.
func (c jsonString) message(v string) (pool.Message, error) {
	n := len(v) + 2
	if n > pool.MaxLen || !isLiteral(bytesOf(v)) {
		return c.jsonCodec.message(v)
	}
	m := pool.New(n)
	b := m.Bytes()
	b[0], b[n-1] = '"', '"'
	copy(b[1:], v)
	return m, nil
}

// isLiteral tells whether s stands for itself between the quotes of JSON: it is ASCII
// without control characters, quotes and backslashes.
func isLiteral(s []byte) bool {
	if bytes.IndexByte(s, '"') >= 0 || bytes.IndexByte(s, '\\') >= 0 {
		return false
	}
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 32; s = s[32:] {
		p := (*[32]byte)(s) // its bounds are checked once
		a, b := binary.LittleEndian.Uint64(p[:]), binary.LittleEndian.Uint64(p[8:])
		c, d := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		// Of bytes below 128 a subtraction sets the high bit where one is less than what is
		// subtracted, and behind such a one only.
		if (a|b|c|d|(a-ones*' ')|(b-ones*' ')|(c-ones*' ')|(d-ones*' '))&highs != 0 {
			return false
		}
	}
	for _, c := range s {
		if c < ' ' || c >= 0x80 {
			return false
		}
	}
	return true
}

// bytesOf are the bytes of s, in place: nobody may write to them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
