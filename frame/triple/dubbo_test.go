package triple

import (
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

var dubbo = Protocol{Dubbo: true}

// dubboTail is how the trailers of a server for Dubbo's programs go on behind the status.
const dubboTail = " content-type=application/grpc grpc-accept-encoding=gzip,zstd"

func TestAServerForDubboWritesItsFields(t *testing.T) {
	// In a bubble it is midnight on the first of January, 2000.
	const headers = "HEADERS 1 " + answerHeaders + " date=Sat, 01 Jan 2000 00:00:00 GMT h=1\n"
	for _, c := range []struct {
		name   string
		accept bool
		end    frame.Frame
		want   string
	}{
		{"success", true, frame.Frame{Kind: frame.EOS}, headers + "HEADERS 1 grpc-status=0 grpc-message=" + okMessage + dubboTail + " end"},
		{"failure", true, frame.Frame{Kind: frame.EOS, Code: status.NotFound, Reason: "none", Metadata: metadata.MD{{Key: "t", Value: "2"}}},
			headers + "HEADERS 1 grpc-status=5 grpc-message=none" + dubboTail + " t=2 end"},
		{"refusal", false, frame.Frame{Kind: frame.Reject, Code: status.Unimplemented},
			"HEADERS 1 :status=200 content-type=application/grpc grpc-accept-encoding=gzip,zstd grpc-status=12 end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := startWith(t, dubbo, false)
				k.in(k.request(1, fEndStream))
				if c.accept {
					k.do(&frame.Frame{Kind: frame.Accept, Stream: 1, Metadata: metadata.MD{{Key: "h", Value: "1"}}})
				}
				c.end.Stream = 1
				k.do(&c.end)
				k.writes(c.want)
			})
		})
	}
}

func TestMetadataShowsTheFieldsOfGRPC(t *testing.T) {
	k := startWith(t, dubbo, false)
	k.wants(`OPEN 1 p.S/M credit 65535 within 1.5s content-type="application/grpc" grpc-timeout="1500m" k="v"
EOS 1`, k.request(1, fEndStream, "grpc-timeout", "1500m", "k", "v"))

	k = startWith(t, dubbo, true)
	k.do(&frame.Frame{Kind: frame.Open, Stream: 1, Method: "m"})
	k.wants(`ACCEPT 1 credit 65535 content-type="application/grpc" date="today"
EOS 1 grpc-status="0" grpc-message="100%25" grpc-status-details-bin="\x01"
STOP 1`,
		k.headers(1, 0, ":status", "200", "content-type", "application/grpc", "date", "today"),
		k.headers(1, fEndStream, "grpc-status", "0", "grpc-message", "100%25", detailsKey, "AQ"))
}
