package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// The .proto files in internal are compiled to internal/files.binpb, and the code that is
// generated from them stands beside them: go build compiles that too. How both are made again is
// said in CONTRIBUTING.md.
const testFiles = "internal/files.binpb"

// run runs the plugin as a compiler would, on some of the files, or on all.
func run(t *testing.T, parameter string, files ...string) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	b, err := os.ReadFile(testFiles)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(b, set); err != nil {
		t.Fatal(err)
	}
	if files == nil {
		for _, f := range set.File {
			if !strings.HasPrefix(f.GetName(), "google/") {
				files = append(files, f.GetName())
			}
		}
	}
	p, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: files, ProtoFile: set.File, Parameter: proto.String(parameter),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := generate(p); err != nil {
		t.Fatal(err)
	}
	r := p.Response()
	if r.Error != nil {
		t.Fatal(r.GetError())
	}
	return r
}

func TestTheGeneratedCodeIsWhatStandsThere(t *testing.T) {
	files, err := filepath.Glob("internal/*/*_sluice.pb.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	generated := map[string]string{}
	for _, f := range run(t, "paths=source_relative").File {
		generated["internal/"+f.GetName()] = f.GetContent()
	}
	for _, name := range files {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if generated[name] != string(want) {
			t.Errorf("%s is generated otherwise now", name)
		}
		delete(generated, name)
	}
	for name := range generated {
		t.Errorf("%s is generated, and not there", name)
	}
}

// paths are the names of the files in r.
func paths(r *pluginpb.CodeGeneratorResponse) (names []string) {
	for _, f := range r.File {
		names = append(names, f.GetName())
	}
	return names
}

func TestParameters(t *testing.T) {
	const module = "github.com/sluicerpc/sluice/cmd/protoc-gen-go-sluice/internal"
	for _, c := range []struct {
		parameter, file, path string
		contains              string
	}{
		{"", "editionpb/first.proto", module + "/editionpb/first_sluice.pb.go", `req "` + module + `/req"`},
		{"paths=source_relative", "editionpb/first.proto", "editionpb/first_sluice.pb.go", ""},
		{"module=" + module, "editionpb/first.proto", "editionpb/first_sluice.pb.go", ""},
		{"Mreq/req.proto=example.com/other;others", "editionpb/first.proto", module + "/editionpb/first_sluice.pb.go", `other "example.com/other"`},
		{"Meditionpb/second.proto=example.com/moved;second", "editionpb/second.proto", "example.com/moved/second_sluice.pb.go", "\npackage second\n"},
	} {
		r := run(t, c.parameter, c.file)
		if got := paths(r); !slices.Equal(got, []string{c.path}) {
			t.Errorf("%q: files %q, want %q", c.parameter, got, c.path)
			continue
		}
		if text := r.File[0].GetContent(); !strings.Contains(text, c.contains) {
			t.Errorf("%q: %q is missing in\n%s", c.parameter, c.contains, text)
		}
	}
}

func TestAFileWithoutServicesHasNoCode(t *testing.T) {
	if got := paths(run(t, "", "req/req.proto")); len(got) > 0 {
		t.Errorf("generated %q", got)
	}
}

func TestFeatures(t *testing.T) {
	r := run(t, "")
	const want = pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL | pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS
	if got := pluginpb.CodeGeneratorResponse_Feature(r.GetSupportedFeatures()); got != want {
		t.Errorf("features %v, want %v", got, want)
	}
	least, most := r.GetMinimumEdition(), r.GetMaximumEdition()
	if edition := int32(descriptorpb.Edition_EDITION_2023); least > edition || most < edition {
		t.Errorf("editions %d to %d", least, most)
	}
}
