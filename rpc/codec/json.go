package codec

import (
	"encoding/json"

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
// share than to keep them alive.
const copied = 4 << 10

// jsonString is JSON's codec for strings, which package json reads and writes byte by byte:
// one of 64 KiB takes it 350 us both ways, where most stand for themselves.
type jsonString struct{ jsonCodec[string] }

// Append implements Codec.
func (c jsonString) Append(b []byte, v string) ([]byte, error) {
	if !isLiteral(v) {
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
	if n > pool.MaxLen || !isLiteral(v) {
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
func isLiteral[S string | []byte](s S) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		v := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		quote, slash := v^ones*'"', v^ones*'\\' // which have a byte of 0 for each one
		// Of bytes below 128 a subtraction sets the high bit where one is less than what is
		// subtracted, and behind such a one only.
		if (v|(v-ones*' ')|(quote-ones)|(slash-ones))&highs != 0 {
			return false
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x80 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
