// Command protoc-gen-go-sluice is a plugin of the protobuf compilers protoc and buf. For each
// service of a .proto file it generates a typed handler and a typed caller on package rpc, in a
// file of their own, NAME_sluice.pb.go, beside what protoc-gen-go generates:
//
//	protoc --go_out=. --go-sluice_out=. greeter.proto
//
// docs/idl.md leads from a .proto file to a server and a client. The plugin has protoc-gen-go's
// parameters: paths, module, and M for the import path of a file.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	version := flag.Bool("version", false, "print the version and exit")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "protoc-gen-go-sluice is run by protoc or buf: see docs/idl.md")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *version {
		fmt.Println("protoc-gen-go-sluice", moduleVersion())
		return
	}
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	protogen.Options{}.Run(generate)
}

// moduleVersion is the version of the module that the plugin was built from.
func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// generate writes what p asks for.
func generate(p *protogen.Plugin) error {
	p.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL | pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS)
	p.SupportedEditionsMinimum = descriptorpb.Edition_EDITION_PROTO2
	p.SupportedEditionsMaximum = descriptorpb.Edition_EDITION_2024
	for _, f := range p.Files {
		if f.Generate && len(f.Services) > 0 {
			generateFile(p, f)
		}
	}
	return nil
}
