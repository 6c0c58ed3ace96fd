// Package metadata is what travels beside messages: an ordered list of keys and values, with
// an open, an answer or an end.
package metadata

import "strings"

// MD is an ordered list of fields. A key may appear more than once. Keys are lower-case ASCII
// letters, digits, '-', '_' and '.', at most 255 bytes; values are any bytes. Where another
// key is to be sent the call fails with kernel.ErrMetadataKey. The zero MD is empty.
type MD []Field

// A Field is one key and value.
type Field struct {
	Key   string
	Value string
}

// Get returns the first value of key, or "" if there is none.
func (md MD) Get(key string) string {
	v, _ := md.Lookup(key)
	return v
}

// Lookup returns the first value of key, which may be "", and whether there is one.
func (md MD) Lookup(key string) (value string, ok bool) {
	for _, f := range md {
		if f.Key == key {
			return f.Value, true
		}
	}
	return "", false
}

// Values returns all values of key in order.
func (md MD) Values(key string) []string {
	var vs []string
	for _, f := range md {
		if f.Key == key {
			vs = append(vs, f.Value)
		}
	}
	return vs
}

// Add adds a field to md; the key is made lower-case.
func (md *MD) Add(key, value string) {
	*md = append(*md, Field{strings.ToLower(key), value})
}

// Size is the number of bytes that count against the metadata limit: each
// field's key and value and 32 more, as in HTTP/2 (RFC 9113, section 6.5.2).
func (md MD) Size() int {
	n := 0
	for _, f := range md {
		n += len(f.Key) + len(f.Value) + 32
	}
	return n
}

// BadKey returns the first key that the wire can't carry, and whether there is one.
func (md MD) BadKey() (key string, bad bool) {
	for _, f := range md {
		if !validKey(f.Key) {
			return f.Key, true
		}
	}
	return "", false
}

func validKey(k string) bool {
	if k == "" || len(k) > 255 {
		return false
	}
	for i := range len(k) {
		c := k[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}
