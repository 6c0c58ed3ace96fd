package main

import (
	"path"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
)

// A service is one with the names that its generated code has.
type service struct {
	*protogen.Service
	descriptor, handler, unimplemented, handle, caller, newCaller string

	methods []*method
}

// A method is one with its name in Go, and that of the constant that has its name on the wire.
type method struct {
	*protogen.Method
	name, constant string
	params         map[string]string
}

// fullName is the method's name on the wire.
func (m *method) fullName() string {
	return string(m.Parent.Desc.FullName()) + "/" + string(m.Desc.Name())
}

// param is how the parameter of a function for m is named.
func (m *method) param(name string) string {
	if p, ok := m.params[name]; ok {
		return p
	}
	return name
}

// names are the names at the top of a Go package that are taken.
type names map[string]bool

// take takes a name like the one given: where that is taken, with underscores behind it.
func (n names) take(name string) string {
	for n[name] {
		name += "_"
	}
	n[name] = true
	return name
}

// servicesOf names what is generated for the services of f. Which names those are depends on the
// other files of f's Go package that the compiler knows: what protoc-gen-go generates for them
// comes first, then the services, file by file.
func servicesOf(p *protogen.Plugin, f *protogen.File) (services []*service) {
	taken := names{}
	for _, other := range p.Files {
		if other.GoImportPath == f.GoImportPath {
			taken.takeTypes(other.Messages, other.Enums, other.Extensions)
		}
	}
	for _, other := range p.Files {
		if other.GoImportPath != f.GoImportPath {
			continue
		}
		for _, s := range other.Services {
			named := taken.service(s)
			if other == f {
				services = append(services, named)
			}
		}
	}
	return services
}

// takeTypes takes the names of what protoc-gen-go generates.
func (n names) takeTypes(messages []*protogen.Message, enums []*protogen.Enum, extensions []*protogen.Extension) {
	for _, e := range enums {
		n[e.GoIdent.GoName] = true
		for _, v := range e.Values {
			n[v.GoIdent.GoName] = true
		}
	}
	for _, e := range extensions {
		n[e.GoIdent.GoName] = true
	}
	for _, m := range messages {
		n[m.GoIdent.GoName] = true
		for _, field := range m.Fields {
			n[field.GoIdent.GoName] = true // the wrapper, if it is one of several
		}
		n.takeTypes(m.Messages, m.Enums, m.Extensions)
	}
}

// service names what is generated for s.
func (n names) service(s *protogen.Service) *service {
	named := &service{
		Service:       s,
		descriptor:    n.take(s.GoName + "Service"),
		handler:       n.take(s.GoName + "Handler"),
		unimplemented: n.take("Unimplemented" + s.GoName + "Handler"),
		handle:        n.take("Handle" + s.GoName),
		caller:        n.take(s.GoName + "Caller"),
		newCaller:     n.take("New" + s.GoName + "Caller"),
	}
	methods := names{} // "greet" and "Greet" are two names on the wire
	for _, m := range s.Methods {
		name := methods.take(m.GoName)
		named.methods = append(named.methods, &method{
			Method: m, name: name, constant: n.take(s.GoName + name + "Method"), params: paramsBeside(m),
		})
	}
	return named
}

// paramsBeside are the names of parameters that would hide the package of a message of m's:
// protogen names an import by the end of its path.
func paramsBeside(m *protogen.Method) map[string]string {
	var params map[string]string
	for _, message := range []*protogen.Message{m.Input, m.Output} {
		name := strings.ToLower(path.Base(string(message.GoIdent.GoImportPath)))
		switch name {
		case "ctx", "req", "opts", "c":
			if params == nil {
				params = map[string]string{}
			}
			params[name] = name + "_"
		}
	}
	return params
}
