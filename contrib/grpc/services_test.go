package sluicegrpc_test

import (
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	sluicegrpc "github.com/sluicerpc/sluice/contrib/grpc"
	"github.com/sluicerpc/sluice/kernel"
)

// grpc-go's own health service runs, and tells who watches.
func TestHealth(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		h := health.NewServer()
		c := healthgrpc.NewHealthClient(w.start(t, nil, nil, func(r grpc.ServiceRegistrar) { healthgrpc.RegisterHealthServer(r, h) }))
		h.SetServingStatus("s", healthgrpc.HealthCheckResponse_SERVING)
		resp, err := c.Check(bounded(t), &healthgrpc.HealthCheckRequest{Service: "s"})
		ok(t, err)
		if resp.Status != healthgrpc.HealthCheckResponse_SERVING {
			t.Errorf("the status is %v", resp.Status)
		}
		_, err = c.Check(bounded(t), &healthgrpc.HealthCheckRequest{Service: "none"})
		wantCode(t, err, codes.NotFound)
		st, err := c.Watch(bounded(t), &healthgrpc.HealthCheckRequest{Service: "s"})
		ok(t, err)
		for _, want := range []healthgrpc.HealthCheckResponse_ServingStatus{healthgrpc.HealthCheckResponse_SERVING, healthgrpc.HealthCheckResponse_NOT_SERVING} {
			resp, err := st.Recv()
			ok(t, err)
			if resp.Status != want {
				t.Errorf("watched %v, want %v", resp.Status, want)
			}
			h.SetServingStatus("s", healthgrpc.HealthCheckResponse_NOT_SERVING)
		}
	})
}

// grpc-go's own reflection describes what is registered, in both of its versions.
func TestReflection(t *testing.T) {
	over(t, false, func(t *testing.T, w world) {
		cc := w.start(t, nil, nil, func(r grpc.ServiceRegistrar) {
			(&service{}).register(r)
			healthgrpc.RegisterHealthServer(r, health.NewServer())
			reflection.Register(r.(reflection.GRPCServer))
		})
		want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "grpc.testing.TestService"}

		st, err := v1.NewServerReflectionClient(cc).ServerReflectionInfo(bounded(t))
		ok(t, err)
		ok(t, st.Send(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_ListServices{}}))
		resp, err := st.Recv()
		ok(t, err)
		var got []string
		for _, s := range resp.GetListServicesResponse().GetService() {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("services %q, want %q", got, want)
		}
		ok(t, st.Send(&v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "grpc.testing.TestService"}}))
		resp, err = st.Recv()
		ok(t, err)
		if len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("no files: %v", resp)
		}
		ok(t, st.CloseSend())
		if _, err := st.Recv(); err != io.EOF {
			t.Error(err)
		}

		old, err := v1alpha.NewServerReflectionClient(cc).ServerReflectionInfo(bounded(t))
		ok(t, err)
		//lint:ignore SA1019 it is what is tested
		ok(t, old.Send(&v1alpha.ServerReflectionRequest{MessageRequest: &v1alpha.ServerReflectionRequest_ListServices{}}))
		oldResp, err := old.Recv()
		ok(t, err)
		//lint:ignore SA1019 the same
		if n := len(oldResp.GetListServicesResponse().GetService()); n != len(want) {
			t.Errorf("v1alpha has %d services, want %d", n, len(want))
		}
		ok(t, old.CloseSend())
	})
}

// What is registered is told, and can be registered at any time, once, beside other handlers.
func TestRegistrar(t *testing.T) {
	h := &kernel.Handlers{}
	r := sluicegrpc.NewRegistrar(h, nil)
	if n := len(r.GetServiceInfo()); n != 0 {
		t.Errorf("%d services", n)
	}
	(&service{}).register(r)
	info := r.GetServiceInfo()["grpc.testing.TestService"]
	kinds := map[string][2]bool{}
	for _, m := range info.Methods {
		kinds[m.Name] = [2]bool{m.IsClientStream, m.IsServerStream}
	}
	for name, want := range map[string][2]bool{"UnaryCall": {}, "StreamingInputCall": {true, false}, "StreamingOutputCall": {false, true}, "FullDuplexCall": {true, true}} {
		if got, has := kinds[name]; !has || got != want {
			t.Errorf("%s: %v, %v", name, got, has)
		}
	}
	if info.Metadata != "grpc/testing/test.proto" {
		t.Errorf("metadata %v", info.Metadata)
	}
	for what, f := range map[string]func(){
		"a second time": func() { (&service{}).register(r) },
		"another type":  func() { r.RegisterService(&healthgrpc.Health_ServiceDesc, &testgrpc.Empty{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("registering %s is no panic", what)
				}
			}()
			f()
		}()
	}
}
