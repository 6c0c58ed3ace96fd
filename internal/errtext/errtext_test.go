package errtext

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestErrorf(t *testing.T) {
	ours := errors.New("sluice: ours")
	for want, err := range map[string]error{
		"sluice: open x: EOF":                Errorf("sluice: open %s: %w", "x", io.EOF),
		"sluice: open x: ours":               Errorf("sluice: open %s: %w", "x", ours),
		"sluice: open x: ours: read: EOF":    Errorf("sluice: open %s: %w: %w", "x", ours, fmt.Errorf("read: %w", io.EOF)),
		"sluice: call: open x: ours: 3 left": Errorf("sluice: call: %w", Errorf("sluice: open x: %w: %d left", ours, 3)),
		"sluice: a":                          Errorf("sluice: a"),
		"a":                                  Errorf("a"),
		"sluice: a: ours":                    Errorf("a: %w", ours),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	both := Errorf("sluice: call: %w", Errorf("sluice: open: %w: %w", ours, io.EOF))
	if !errors.Is(both, ours) || !errors.Is(both, io.EOF) {
		t.Errorf("%v wraps neither", both)
	}
}

func TestClip(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: "a", 2: "a", 3: "aé", 4: "aé", 5: "aé", 6: "aé€", 7: "aé€", 9: "aé€"} {
		if got := Clip("aé€", n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"plain: it's é": "plain: it's é",
		"two\nlines":    `"two\nlines"`,
		"\x1b[31mred":   `"\x1b[31mred"`,
		"nul\x00":       `"nul\x00"`,
		"\xff":          `"\xff"`,
		"\u202eback":    `"\u202eback"`,
		"no\u00a0break": `"no\u00a0break"`,
	} {
		if got := Quote(text); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
