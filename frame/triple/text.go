package triple

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// binSuffix ends the names of fields whose values are binary, in base64 on the wire.
const binSuffix = "-bin"

// detailsKey is the trailer with a status's details: a google.rpc.Status.
const detailsKey = "grpc-status-details-bin"

// decodeBase64 decodes a binary value, with or without padding.
func decodeBase64(v string) (string, bool) {
	v = strings.TrimRight(v, "=")
	p, err := base64.RawStdEncoding.DecodeString(v)
	return string(p), err == nil
}

// fieldKind says what a field's name is.
type fieldKind uint8

const (
	nameKey   fieldKind = iota // a key that metadata can have
	nameOther                  // another name that HTTP allows
	nameWrong                  // none that HTTP allows
)

func fieldName(n string) fieldKind {
	k := nameKey
	if n == "" {
		return nameWrong
	}
	if len(n) > 255 {
		k = nameOther
	}
	for i := range len(n) {
		switch c := n[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		case strings.IndexByte("!#$%&'*+^`|~", c) >= 0:
			k = nameOther
		default:
			return nameWrong
		}
	}
	return k
}

// fieldValue reports whether v is what a field's value may be (RFC 9113, section 8.2.1).
func fieldValue(v string) bool {
	if v == "" {
		return true
	}
	if first, last := v[0], v[len(v)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range len(v) {
		if c := v[i]; c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

// isText reports whether v can be a value of gRPC's as it is: printable ASCII, without a
// space at either end.
func isText(v string) bool {
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return v == "" || v[0] != ' ' && v[len(v)-1] != ' '
}

const hexDigits = "0123456789ABCDEF"

// appendPercent appends v with each byte that keep does not keep as %XX.
func appendPercent(b []byte, v string, keep func(c byte) bool) []byte {
	for i := range len(v) {
		if c := v[i]; keep(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return b
}

// inMessage reports whether a grpc-message has c as it is.
func inMessage(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }

// inPath reports whether a path has c as it is.
func inPath(c byte) bool { return c > ' ' && c <= '~' && c != '%' && c != '#' && c != '?' }

// encodePercent is v, as it is where keep keeps all of it.
func encodePercent(v string, keep func(c byte) bool) string {
	for i := range len(v) {
		if !keep(v[i]) {
			return string(appendPercent(nil, v, keep))
		}
	}
	return v
}

// decodePercent takes back what encodePercent did. What is not %XX stays as it is.
func decodePercent(v string) string {
	if strings.IndexByte(v, '%') < 0 {
		return v
	}
	b := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			hi, lo := unhex(v[i+1]), unhex(v[i+2])
			if hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, v[i])
	}
	return strings.ToValidUTF8(string(b), string(utf8.RuneError))
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// methodOf is the kernel's name of the method that a path names.
func methodOf(path string) (string, bool) {
	if len(path) < 1 || path[0] != '/' {
		return "", false
	}
	return decodePercent(path[1:]), true
}
