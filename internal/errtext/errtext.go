// Package errtext makes error texts that say a thing once and that a peer can't forge lines
// with.
package errtext

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// prefix is what the texts of our errors begin with.
const prefix = "sluice: "

// Errorf is fmt.Errorf for an error of ours that may wrap others of ours: the prefix stands
// in its text once.
func Errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if strings.LastIndex(err.Error(), prefix) <= 0 {
		return err
	}
	return &wrapped{err}
}

// wrapped is an error whose text has the prefix more than once.
type wrapped struct{ error }

func (w *wrapped) Error() string { return prefix + Of(w.error) }

// Unwrap returns what fmt.Errorf made, which wraps the rest.
func (w *wrapped) Unwrap() error { return w.error }

// Of is err's text without prefixes, for use inside another one.
func Of(err error) string { return Trim(err.Error()) }

// Trim is a text without prefixes. A peer's reason may be the text of an error of ours.
func Trim(text string) string { return strings.ReplaceAll(text, prefix, "") }

// Clip is text cut to at most n bytes, between two characters.
func Clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Quote returns a text that comes from a peer: as it is, or quoted if it has anything that
// does not print.
func Quote(text string) string {
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	return strconv.Quote(text)
}
