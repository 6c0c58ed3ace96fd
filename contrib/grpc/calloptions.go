package sluicegrpc

import (
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluicerpc/sluice/pool"
)

// callOptions are the options of one RPC.
type callOptions struct {
	codec        codec
	subtype      string // "": not said
	waitForReady bool
	maxReceive   int // 0: the client's limit
	maxSend      int
	compression  pool.Compression
	creds        credentials.PerRPCCredentials
	authority    string

	// Where what the RPC brings goes.
	headers, trailers []*metadata.MD
	peers             []*peer.Peer
	onFinish          []func(error)
}

// apply sets o to what lists of options say; a later one comes before an earlier one. An option
// that is not known is an error: nothing that a program asks for is left out in silence.
func (o *callOptions) apply(lists ...[]grpc.CallOption) error {
	for _, list := range lists {
		for _, opt := range list {
			if err := o.set(opt); err != nil {
				return err
			}
		}
	}
	if o.codec.c != nil {
		return nil
	}
	var err error
	o.codec, err = codecFor(o.subtype)
	return err
}

func (o *callOptions) set(opt grpc.CallOption) error {
	switch opt := opt.(type) {
	case grpc.HeaderCallOption:
		o.headers = append(o.headers, opt.HeaderAddr)
	case grpc.TrailerCallOption:
		o.trailers = append(o.trailers, opt.TrailerAddr)
	case grpc.PeerCallOption:
		o.peers = append(o.peers, opt.PeerAddr)
	case grpc.OnFinishCallOption:
		o.onFinish = append(o.onFinish, opt.OnFinish)
	case grpc.FailFastCallOption:
		o.waitForReady = !opt.FailFast
	case grpc.MaxRecvMsgSizeCallOption:
		o.maxReceive = sizeOf(opt.MaxRecvMsgSize)
	case grpc.MaxSendMsgSizeCallOption:
		o.maxSend = sizeOf(opt.MaxSendMsgSize)
	case grpc.PerRPCCredsCallOption:
		o.creds = opt.Creds
	case grpc.AuthorityOverrideCallOption:
		o.authority = opt.Authority
	case grpc.CompressorCallOption:
		return o.compress(opt.CompressorType)
	case grpc.ContentSubtypeCallOption:
		o.subtype = opt.ContentSubtype
	case grpc.ForceCodecCallOption:
		o.force(opt.Codec.Name(), codec{c: oldCodec{opt.Codec}})
	case grpc.ForceCodecV2CallOption:
		o.force(opt.CodecV2.Name(), codec{c: opt.CodecV2, proto: isGRPCProto(opt.CodecV2)})
	case grpc.CustomCodecCallOption:
		o.force("", codec{c: oldCodec{opt.Codec}})
	case grpc.StaticMethodCallOption, grpc.MaxRetryRPCBufferSizeCallOption, grpc.EmptyCallOption:
		// They are about what there is none of: names of methods in metrics, and retries.
	default:
		return status.Errorf(codes.Unimplemented, "the call option %T is not known", opt)
	}
	return nil
}

// force uses c. Its name is the content-subtype, unless an option says another.
func (o *callOptions) force(name string, c codec) {
	o.codec = c
	if o.subtype == "" && !c.proto {
		o.subtype = name
	}
}

func (o *callOptions) compress(name string) error {
	switch name {
	case "", encoding.Identity:
		o.compression = pool.NoCompression
	case pool.Gzip.String():
		o.compression = pool.Gzip
	case pool.Zstd.String():
		o.compression = pool.Zstd
	default:
		return status.Errorf(codes.Internal, "there is no compressor %q", name)
	}
	return nil
}

// sizeOf is a limit of gRPC's as one of the kernel's, where 0 stands for the default.
func sizeOf(n int) int {
	return min(max(n, 1), math.MaxInt32)
}
