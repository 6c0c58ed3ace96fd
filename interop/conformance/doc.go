// Package conformance has the programs that the connect conformance suite tests
// (https://github.com/connectrpc/conformance): a server and a client on package kernel, which
// speak gRPC. The suite's runner starts them, and talks to them over their standard input and
// output in messages of package conformancepb, each behind its length in four bytes.
package conformance

import (
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluicerpc/sluice/interop/conformance/conformancepb"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
)

// service is the name of the service under test, as the methods' names begin.
const service = "connectrpc.conformance.v1.ConformanceService/"

// details is the key of a trailer with a google.rpc.Status, which has an error's details.
const details = "grpc-status-details-bin"

// largest is how long a message of the runner's may be, bytes.
const largest = 64 << 20

// read reads one message of the runner's. The error is io.EOF if there are no more.
func read(r io.Reader, m proto.Message) error {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > largest {
		return io.ErrShortBuffer
	}
	p := make([]byte, size)
	if _, err := io.ReadFull(r, p); err != nil {
		return io.ErrUnexpectedEOF
	}
	return proto.Unmarshal(p, m)
}

// write writes one message to the runner.
func write(w io.Writer, m proto.Message) error {
	p, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4), m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	_, err = w.Write(p)
	return err
}

// encode makes a message of a stream.
func encode(m proto.Message) (pool.Message, error) {
	p, err := proto.Marshal(m)
	if err != nil {
		return pool.Message{}, err
	}
	return pool.MessageOf(p), nil
}

// decode reads a message of a stream, and takes it over.
func decode(m pool.Message, v proto.Message) error {
	defer m.Release()
	return proto.Unmarshal(m.Bytes(), v)
}

// metadataOf gives headers of the suite as metadata. The suite writes binary values in base64.
func metadataOf(hs []*conformancepb.Header) metadata.MD {
	var md metadata.MD
	for _, h := range hs {
		for _, v := range h.Value {
			if isBinary(h.Name) {
				if p, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err == nil {
					v = string(p)
				}
			}
			md.Add(h.Name, v)
		}
	}
	return md
}

// headersOf gives metadata as headers of the suite, each key once.
func headersOf(md metadata.MD) []*conformancepb.Header {
	var hs []*conformancepb.Header
	byName := map[string]*conformancepb.Header{}
	for _, f := range md {
		h := byName[f.Key]
		if h == nil {
			h = &conformancepb.Header{Name: f.Key}
			byName[f.Key] = h
			hs = append(hs, h)
		}
		v := f.Value
		if isBinary(f.Key) {
			v = base64.RawStdEncoding.EncodeToString([]byte(v))
		}
		h.Value = append(h.Value, v)
	}
	return hs
}

func isBinary(name string) bool { return strings.HasSuffix(strings.ToLower(name), "-bin") }

// detailsOf is the metadata that carries an error's details.
func detailsOf(e *conformancepb.Error) (metadata.MD, error) {
	p, err := proto.Marshal(&status.Status{Code: e.Code, Message: e.GetMessage(), Details: e.Details})
	if err != nil {
		return nil, err
	}
	return metadata.MD{{Key: details, Value: string(p)}}, nil
}
