package metadata_test

import (
	"fmt"

	"github.com/sluicerpc/sluice/metadata"
)

// Metadata is an ordered list. Lookup tells a key that is absent from one with an empty value.
func ExampleMD() {
	md := metadata.MD{{Key: "trace", Value: "7f"}}
	md.Add("Note", "") // Add makes letters small
	for _, key := range []string{"trace", "note", "user"} {
		value, ok := md.Lookup(key)
		fmt.Printf("%s: %q %t\n", key, value, ok)
	}
	md.Add("tag", "red")
	md.Add("tag", "blue")
	fmt.Println(md.Get("tag"), md.Values("tag"))
	fmt.Println(md.Size(), "bytes count against Limits.MaxMetadata")

	md = append(md, metadata.Field{Key: "Not Allowed", Value: "x"})
	key, bad := md.BadKey()
	fmt.Printf("%q %t\n", key, bad)
	// Output:
	// trace: "7f" true
	// note: "" true
	// user: "" false
	// red [red blue]
	// 152 bytes count against Limits.MaxMetadata
	// "Not Allowed" true
}
