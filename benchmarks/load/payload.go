package load

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// A Payload makes the messages for a service of the user's. What comes back is counted and
// not looked into, so any bytes will do.
type Payload struct {
	text  string
	parts []part
}

// A part is a piece of a payload.
type part struct {
	kind string // "": the text as it is
	text string
	n    int // bytes; 0: as many as the message's size leaves
}

// ParsePayload reads a template, whose marks are replaced in every message:
//
//	{{counter}}    a decimal number that no other message of the run has, from 0 on
//	{{stream}}     the decimal number of the stream, from 0 on
//	{{random 16}}  16 random bytes
//	{{random}}     random bytes up to the message's size
//	{{hex 16}}     16 random bytes in hexadecimal, which is 32 characters
//
// Everything else is sent as it is. No template is {{random}}.
func ParsePayload(text string) (*Payload, error) {
	p := &Payload{text: text}
	for rest := text; rest != ""; {
		before, mark, found := strings.Cut(rest, "{{")
		if before != "" {
			p.parts = append(p.parts, part{text: before})
		}
		if !found {
			break
		}
		word, after, closed := strings.Cut(mark, "}}")
		if !closed {
			return nil, fmt.Errorf("payload: {{%s has no }}", mark)
		}
		piece, err := parseMark(strings.Fields(word))
		if err != nil {
			return nil, fmt.Errorf("payload: {{%s}}: %w", word, err)
		}
		p.parts, rest = append(p.parts, piece), after
	}
	if text == "" {
		p.parts = []part{{kind: "random"}}
	}
	return p, nil
}

func parseMark(words []string) (part, error) {
	var m part
	if len(words) > 0 {
		m.kind = words[0]
	}
	counted := m.kind == "random" || m.kind == "hex"
	switch {
	case len(words) == 1 && (m.kind == "counter" || m.kind == "stream" || m.kind == "random"):
		return m, nil
	case len(words) == 2 && counted:
		n, err := ParseBytes(words[1])
		m.n = n
		return m, err
	}
	return m, fmt.Errorf("want counter, stream, random, random BYTES or hex BYTES")
}

// BytesPayload is a payload of these bytes, without marks.
func BytesPayload(name string, b []byte) *Payload {
	return &Payload{text: "the bytes of " + name, parts: []part{{text: string(b)}}}
}

// String returns what ParsePayload read.
func (p *Payload) String() string { return p.text }

// MarshalText returns what ParsePayload read.
func (p *Payload) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// digits is how long a counter can get.
const digits = 20

// longest returns the length of the longest message, where sizes are no longer than size.
func (p *Payload) longest(size int) (n int) {
	fills := false
	for _, m := range p.parts {
		switch {
		case m.kind == "":
			n += len(m.text)
		case m.kind == "hex":
			n += hex.EncodedLen(m.n)
		case m.kind == "random":
			n += m.n
			fills = fills || m.n == 0
		default:
			n += digits
		}
	}
	if fills {
		n = max(n, size)
	}
	return n
}

// append appends a message to b, which is empty, and returns it. What {{random}} fills is left
// to the last of those.
func (p *Payload) append(b []byte, counter uint64, stream, size int, rng *rand.ChaCha8) []byte {
	fixed := 0 // bytes of the parts that were not appended yet, the counters' apart
	for _, m := range p.parts {
		fixed += m.fixed()
	}
	for _, m := range p.parts {
		fixed -= m.fixed()
		switch m.kind {
		case "":
			b = append(b, m.text...)
		case "counter":
			b = strconv.AppendUint(b, counter, 10)
		case "stream":
			b = strconv.AppendInt(b, int64(stream), 10)
		case "hex":
			from := len(b)
			b = appendRandom(b, m.n, rng)
			random := b[from:]
			b = hex.AppendEncode(b, random)
			b = append(b[:from], b[from+len(random):]...)
		case "random":
			n := m.n
			if n == 0 {
				n = max(size-len(b)-fixed, 0)
			}
			b = appendRandom(b, n, rng)
		}
	}
	return b
}

func (m *part) fixed() int {
	switch m.kind {
	case "hex":
		return hex.EncodedLen(m.n)
	case "random":
		return m.n
	}
	return len(m.text)
}

func appendRandom(b []byte, n int, rng *rand.ChaCha8) []byte {
	from := len(b)
	b = append(b, make([]byte, n)...)
	_, _ = rng.Read(b[from:]) // never fails
	return b
}
