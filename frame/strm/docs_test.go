package strm

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const page = "../../docs/interop.md"

// codesTable and errorsTable are what the page shows of codes.go.
func codesTable() string {
	var b strings.Builder
	b.WriteString("| code | error | not processed |\n|---|---|---|\n")
	for _, c := range allCodes() {
		row := codes[c]
		fmt.Fprintf(&b, "| %v | %s | %s |\n", c, named(row.errno), named(row.notProcessed))
	}
	return b.String()
}

func errorsTable() string {
	var b strings.Builder
	b.WriteString("| error | code | |\n|---|---|---|\n")
	for _, r := range errnos {
		note := ""
		if r.notProcessed {
			note = "not processed"
		}
		fmt.Fprintf(&b, "| %s | %v | %s |\n", named(r.errno), r.code, note)
	}
	return b.String()
}

func named(errno int) string {
	r, _ := rowOf(errno)
	return fmt.Sprintf("%s %d", r.name, errno)
}

var tableMark = regexp.MustCompile(`(?m)^<!-- brpc: (codes|errors) -->\n(?:\|.*\n)*`)

// -rewrite puts the tables in.
func TestThePageShowsTheTablesOfErrors(t *testing.T) {
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	now := tableMark.ReplaceAllStringFunc(string(old), func(s string) string {
		n++
		mark, _, _ := strings.Cut(s, "\n")
		if strings.Contains(mark, "codes") {
			return mark + "\n" + codesTable()
		}
		return mark + "\n" + errorsTable()
	})
	if n != 2 {
		t.Fatalf("%d tables", n)
	}
	if *rewrite {
		if err := os.WriteFile(page, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if now != string(old) {
		t.Error("docs/interop.md shows other errors than the code has: run the test with -rewrite and look at the change")
	}
}

// Every key that the package exports is explained, and no other.
func TestThePageNamesTheKeysOfMetadata(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range regexp.MustCompile("`(brpc-[a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		if !reserved(key[1]) {
			t.Errorf("%s is no key", key[1])
		}
	}
	for _, key := range append(logKeys[:], KeyAttachmentSize, KeyCompress, KeyChecksum, KeyContentType, KeyRequestID) {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("%s is not on the page", key)
		}
	}
}
