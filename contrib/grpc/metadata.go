package sluicegrpc

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcmd "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
)

// appendMD appends what a program of gRPC's gives as metadata. As grpc-go does, it leaves out the
// keys that gRPC gives a meaning. A value must be printable ASCII without a space at either end,
// unless its key ends in "-bin": every wire is held to what HTTP/2 carries, so that a program does
// not depend on one.
func appendMD(to metadata.MD, md grpcmd.MD) (metadata.MD, error) {
	for key, values := range md {
		key = strings.ToLower(key)
		if reserved(key) {
			continue
		}
		binary := strings.HasSuffix(key, "-bin")
		for _, v := range values {
			if !binary && !printable(v) {
				return to, status.Errorf(codes.Internal, "a value of %q in metadata is not printable ASCII, or has a space at an end", key)
			}
			to = append(to, metadata.Field{Key: key, Value: v})
		}
	}
	if key, bad := to.BadKey(); bad {
		return to, status.Errorf(codes.Internal, "%q is no key of metadata", key)
	}
	return to, nil
}

// reserved are the keys of metadata that grpc-go does not send for a program.
func reserved(key string) bool {
	switch key {
	case "content-type", "user-agent", "te", "grpc-message-type", "grpc-encoding", "grpc-message", "grpc-status",
		"grpc-timeout", triple.KeyContentSubtype, triple.KeyAuthority:
		return true
	}
	return strings.HasPrefix(key, ":")
}

func printable(v string) bool {
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return v == "" || v[0] != ' ' && v[len(v)-1] != ' '
}

// grpcMD is metadata as programs of gRPC's have it. It is never nil.
func grpcMD(md metadata.MD) grpcmd.MD {
	to := make(grpcmd.MD, len(md))
	for _, f := range md {
		key := f.Key
		switch key {
		case triple.KeyContentSubtype:
			continue
		case triple.KeyAuthority: // over another wire than HTTP/2
			key = ":authority"
		}
		to[key] = append(to[key], f.Value)
	}
	return to
}

// peerOf describes the other side of a connection.
func peerOf(c *kernel.Conn) *peer.Peer {
	p := c.Peer()
	to := &peer.Peer{Addr: p.Addr}
	if p.TLS != nil {
		to.AuthInfo = credentials.TLSInfo{
			State:          *p.TLS,
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}
	}
	return to
}

// methodName is the kernel's name for a method of gRPC's, which begins with a slash.
func methodName(full string) (string, error) {
	name, ok := strings.CutPrefix(full, "/")
	if !ok {
		return "", status.Errorf(codes.Internal, "the method %q has no slash in front", full)
	}
	return name, nil
}
