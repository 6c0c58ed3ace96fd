// Package dubbo runs a server of package kernel by the YAML of Apache Dubbo's programs, and has
// it take part in Dubbo's versions and groups. The wire is Triple, which is gRPC's with a few
// headers more: package frame/triple.
//
//	srv, err := dubbo.Start(ctx, &handlers) // DUBBO_CONFIG_PATH, or application.yaml
//	if err != nil {
//		return err
//	}
//	return srv.Wait() // until ctx ends, or Shutdown
//
// Load reads the YAML, Config.Start serves what it says. A program that has a server of its own
// gives Check to its kernel.ServerOptions.Authorize. A client wraps its kernel.Caller by
// Reference.Caller to say which version and group it wants.
package dubbo
