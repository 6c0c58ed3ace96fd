package load

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPayload(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{})
	make := func(text string, counter uint64, stream, size int) []byte {
		t.Helper()
		p, err := ParsePayload(text)
		if err != nil {
			t.Fatal(err)
		}
		b := p.append(nil, counter, stream, size, rng)
		if most := p.longest(size); len(b) > most {
			t.Errorf("%q: a message of %d bytes, longer than %d", text, len(b), most)
		}
		return b
	}
	if got := make(`{"id":"{{stream}}-{{ counter }}"}`, 12, 3, 64); string(got) != `{"id":"3-12"}` {
		t.Errorf("%s", got)
	}
	if got := make("as it is", 0, 0, 64); string(got) != "as it is" {
		t.Errorf("%s", got)
	}
	a, b := make("", 0, 0, 100), make("", 0, 0, 100)
	if len(a) != 100 || bytes.Equal(a, b) {
		t.Errorf("random messages of %d and %d bytes", len(a), len(b))
	}
	got := make("<{{counter}}{{random}}{{random 5}}{{hex 4}}>", 123, 0, 64)
	if len(got) != 64 || !bytes.HasPrefix(got, []byte("<123")) || got[63] != '>' {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if random, err := hex.DecodeString(string(got[55:63])); err != nil || len(random) != 4 {
		t.Errorf("%q: %v", got[55:63], err)
	}
	if got := make("{{random}}longer than the size", 0, 0, 4); string(got) != "longer than the size" {
		t.Errorf("%q", got)
	}
	file := BytesPayload("x", []byte("{{counter}}"))
	if got := file.append(nil, 1, 1, 1, rng); string(got) != "{{counter}}" || file.longest(64) != 11 {
		t.Errorf("a file became %q", got)
	}
	for _, bad := range []string{"{{counter", "{{}}", "{{count}}", "{{hex}}", "{{random x}}", "{{random 0}}", "{{counter 5}}", "{{random 1 2}}"} {
		if _, err := ParsePayload(bad); err == nil || !strings.Contains(err.Error(), "payload: {{") {
			t.Errorf("payload %q: %v", bad, err)
		}
	}
}
