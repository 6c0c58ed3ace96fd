package admin

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/admin.md has every field of the JSON, and no other.
func TestPageHasTheSchema(t *testing.T) {
	page, err := os.ReadFile("../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "<!-- json -->")
	part, _, _ = strings.Cut(part, "<!-- end -->")
	rows := strings.Split(strings.TrimSpace(part), "\n")[2:]
	types := []any{streamJSON{}, connJSON{}, overviewJSON{}, blockedJSON{}, endpointJSON{}, fleetJSON{}, fleetEndpointJSON{}, loopJSON{}, closedStreamJSON{}, closedConnJSON{}, methodRow{}, settingsJSON{}, versionJSON{}, frameJSON{}}
	if len(rows) != len(types) {
		t.Fatalf("%d rows for %d types", len(rows), len(types))
	}
	for i, r := range rows {
		var said []string
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(r, "|")[2], -1) {
			said = append(said, m[1])
		}
		if want := fieldNames(reflect.TypeOf(types[i])); !slices.Equal(said, want) {
			t.Errorf("%T: the page says %v, the code %v", types[i], said, want)
		}
	}
}

func fieldNames(typ reflect.Type) (names []string) {
	for i := range typ.NumField() {
		if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}
