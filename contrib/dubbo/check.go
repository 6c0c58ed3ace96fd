package dubbo

import (
	"context"
	"strings"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

// The keys of metadata that say which version and group of a service a call is for.
const (
	KeyVersion = "tri-service-version"
	KeyGroup   = "tri-service-group"
)

// Check returns a function for kernel.ServerOptions.Authorize that refuses calls whose version
// and group are not served. A service that has a Version takes calls alone that name it, and so
// with its Group; one that has none takes any. Of several with one Interface one must agree. A
// service that is not among them takes every call. What is refused gets status.Unimplemented.
//
// The function ignores Service.Protocols.
func Check(services ...Service) func(ctx context.Context, id kernel.Identity, method string, md metadata.MD) error {
	return registryOf(services, func(*Service) bool { return true }).check
}

// A registry has the services of one protocol by their interface. One without any is served by
// other protocols alone.
type registry map[string][]Service

// registryOf makes the registry of the protocol where here holds.
func registryOf(services []Service, here func(*Service) bool) registry {
	r := registry{}
	for i := range services {
		s := &services[i]
		if here(s) {
			r[s.Interface] = append(r[s.Interface], *s)
		} else if r[s.Interface] == nil {
			r[s.Interface] = []Service{}
		}
	}
	return r
}

// checks reports whether there is a call that check refuses.
func (r registry) checks() bool {
	for _, services := range r {
		takesAny := false
		for _, s := range services {
			takesAny = takesAny || s.Version == "" && s.Group == ""
		}
		if !takesAny {
			return true
		}
	}
	return false
}

// check is a kernel.ServerOptions.Authorize.
func (r registry) check(_ context.Context, _ kernel.Identity, method string, md metadata.MD) error {
	name := method[:max(strings.LastIndexByte(method, '/'), 0)]
	services, known := r[name]
	if !known {
		return nil
	}
	version, group := md.Get(KeyVersion), md.Get(KeyGroup)
	for _, s := range services {
		if (s.Version == "" || s.Version == version) && (s.Group == "" || s.Group == group) {
			return nil
		}
	}
	return &status.HandlerError{
		Code: status.Unimplemented, Reason: "dubbo: " + name + " is not served here in the version and group of the call",
	}
}
