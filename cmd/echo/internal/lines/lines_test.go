package lines

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for text, want := range map[string][]string{
		"":                    nil,
		"\n":                  {""},
		"a\n\nb\n":            {"a", "", "b"},
		"no newline":          {"no newline"},
		long + "\r\n" + "s\n": {long + "\r", "s"},
	} {
		l := Read(strings.NewReader(text))
		var got []string
		for line := range l.C() {
			got = append(got, string(line))
		}
		if !slices.Equal(got, want) || l.Err() != nil {
			t.Errorf("%.20q: %.20q, %v", text, got, l.Err())
		}
	}
}

func TestAnErrorEndsTheLines(t *testing.T) {
	broken := errors.New("broken")
	l := Read(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)))
	if a, b := <-l.C(), <-l.C(); string(a) != "a" || string(b) != "b" {
		t.Errorf("%q, %q", a, b)
	}
	if line, ok := <-l.C(); ok || !errors.Is(l.Err(), broken) {
		t.Errorf("%q, %v", line, l.Err())
	}
}
