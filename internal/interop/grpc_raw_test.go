package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// The types of frames of HTTP/2, their flags, and errors.
const (
	h2Data, h2Headers, h2Priority, h2Reset, h2Settings = 0, 1, 2, 3, 4
	h2Ping, h2GoAway, h2Window, h2Continuation         = 6, 7, 8, 9

	h2EndStream, h2Ack, h2EndHeaders, h2Padded = 1, 1, 4, 8

	h2ProtocolError, h2FlowControlError, h2StreamClosed, h2FrameSizeError = 1, 3, 5, 6
	h2Refused, h2Cancel, h2CompressionError, h2Calm                       = 7, 8, 9, 11
)

// An h2Frame is a frame that the attacker was sent.
type h2Frame struct {
	typ, flags byte
	id         uint32
	payload    []byte // its first bytes
	fields     map[string]string
}

func (f h2Frame) String() string {
	return fmt.Sprintf("type %d flags %d stream %d %q %v", f.typ, f.flags, f.id, f.payload[:min(len(f.payload), 40)], f.fields)
}

// error is that of an RST_STREAM or GOAWAY.
func (f h2Frame) error() uint32 {
	if f.typ == h2GoAway {
		return binary.BigEndian.Uint32(f.payload[4:])
	}
	return binary.BigEndian.Uint32(f.payload)
}

// h2Granting is what an h2Raw grants for a DATA frame that comes.
type h2Granting int

const (
	grantsConn h2Granting = iota // to the connection as much as was in it
	grantsBoth                   // to its stream too
	grantsNone
)

// An h2Raw is a client of HTTP/2 that sends any bytes.
type h2Raw struct {
	tg     *target
	t      *testing.T
	nc     net.Conn
	next   uint32
	grants h2Granting

	writing sync.Mutex // of nc, and of what is below
	enc     *hpack.Encoder
	block   bytes.Buffer

	mu    sync.Mutex
	heard []h2Frame
	err   error // how the connection ended; nil while it has not
}

// speakHTTP2 connects and begins as a client does.
func (tg *target) speakHTTP2() *h2Raw {
	tg.T.Helper()
	r := &h2Raw{tg: tg, t: tg.T, nc: tg.Connect(), next: 1}
	r.enc = hpack.NewEncoder(&r.block)
	if err := r.write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2Setting(4, 1<<20)); err != nil {
		tg.T.Fatal(err)
	}
	return r
}

// listen reads what the server says, and grants what it has sent again.
func (r *h2Raw) listen() {
	dec := hpack.NewDecoder(4096, nil)
	var b []byte
	p := make([]byte, 64<<10)
	for {
		n, err := r.nc.Read(p)
		for b = append(b, p[:n]...); len(b) >= 9; {
			size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
			if len(b) < 9+size {
				break
			}
			f := h2Frame{typ: b[3], flags: b[4], id: binary.BigEndian.Uint32(b[5:])}
			payload := b[9 : 9+size]
			f.payload = bytes.Clone(payload[:min(size, 100)])
			if f.typ == h2Headers {
				f.fields = map[string]string{}
				fields, _ := dec.DecodeFull(payload)
				for _, x := range fields {
					f.fields[x.Name] = x.Value
				}
			}
			b = b[9+size:]
			r.mu.Lock()
			r.heard = append(r.heard, f)
			r.mu.Unlock()
			r.answer(&f, size)
		}
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
	}
}

// answer does what HTTP/2 asks of who has been sent f, but for pings: their answers are answers
// to nothing here.
func (r *h2Raw) answer(f *h2Frame, size int) {
	switch {
	case f.typ == h2Settings && f.flags&h2Ack == 0:
		_ = r.write(h2(h2Settings, h2Ack, 0, nil))
	case f.typ == h2Ping && f.flags&h2Ack == 0:
		_ = r.write(h2(h2Ping, h2Ack, 0, f.payload))
	case f.typ == h2Data && size > 0 && r.grants == grantsBoth:
		_ = r.write(h2Grant(f.id, uint32(size)), h2Grant(0, uint32(size)))
	case f.typ == h2Data && size > 0 && r.grants == grantsConn:
		_ = r.write(h2Grant(0, uint32(size)))
	}
}

// h2 is a frame.
func h2(typ, flags byte, id uint32, payload []byte) []byte {
	n := len(payload)
	b := binary.BigEndian.AppendUint32([]byte{byte(n >> 16), byte(n >> 8), byte(n), typ, flags}, id)
	return append(b, payload...)
}

func h2Uint32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// h2Setting is a SETTINGS of one value.
func h2Setting(id uint16, v uint32) []byte {
	return h2(h2Settings, 0, 0, append(binary.BigEndian.AppendUint16(nil, id), h2Uint32(v)...))
}

func h2Grant(id, n uint32) []byte { return h2(h2Window, 0, id, h2Uint32(n)) }

func h2Rst(id, code uint32) []byte { return h2(h2Reset, 0, id, h2Uint32(code)) }

// h2Message is a DATA frame with a whole message.
func h2Message(id uint32, flags byte, p string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(p)))
	return h2(h2Data, flags, id, append(b, p...))
}

func (r *h2Raw) write(parts ...[]byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	_, err := r.nc.Write(slices.Concat(parts...))
	return err
}

// fields is a header block, name and value in turn. Blocks must be sent in the order in which
// they were made.
func (r *h2Raw) fields(fields ...string) []byte {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to a buffer
	}
	return bytes.Clone(r.block.Bytes())
}

// requestBlock is the header block of a request; more fields are behind gRPC's.
func (r *h2Raw) requestBlock(method string, more ...string) []byte {
	return r.fields(append([]string{
		":method", "POST", ":scheme", "http", ":path", "/" + method, ":authority", "a", "content-type", "application/grpc", "te", "trailers",
	}, more...)...)
}

// request is the HEADERS of the next stream.
func (r *h2Raw) request(method string, more ...string) (id uint32, frame []byte) {
	id = r.next
	r.next += 2
	return id, h2(h2Headers, h2EndHeaders, id, r.requestBlock(method, more...))
}

// open opens a stream and waits for nothing.
func (r *h2Raw) open(method string, more ...string) uint32 {
	id, f := r.request(method, more...)
	_ = r.write(f) // the connection may have ended
	return id
}

// find returns the first frame for a stream that is as wanted.
func (r *h2Raw) find(id uint32, wanted func(f *h2Frame) bool) (h2Frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.heard {
		if f := &r.heard[i]; f.id == id && wanted(f) {
			return *f, true
		}
	}
	return h2Frame{}, false
}

// ended tells whether the connection has ended with a GOAWAY of that error.
func (r *h2Raw) ended(code uint32) bool {
	f, ok := r.find(0, func(f *h2Frame) bool { return f.typ == h2GoAway })
	return ok && f.error() == code && r.over() != nil
}

// wasReset tells whether a stream was reset with that error.
func (r *h2Raw) wasReset(id, code uint32) bool {
	_, ok := r.find(id, func(f *h2Frame) bool { return f.typ == h2Reset && f.error() == code })
	return ok
}

// wasAnswered tells whether a stream has ended with a status of gRPC's.
func (r *h2Raw) wasAnswered(id uint32, code int) bool {
	_, ok := r.find(id, func(f *h2Frame) bool { return f.typ == h2Headers && f.fields["grpc-status"] == strconv.Itoa(code) })
	return ok
}

func (r *h2Raw) over() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// tail is what was heard last.
func (r *h2Raw) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%v, %v", r.heard[max(0, len(r.heard)-5):], r.err)
}

// echoes checks that a new stream of the same connection works.
func (r *h2Raw) echoes() {
	r.t.Helper()
	id, open := r.request("echo")
	_ = r.write(open, h2Message(id, h2EndStream, "alive"))
	if !r.tg.Settle(func() bool {
		f, ok := r.find(id, func(f *h2Frame) bool { return f.typ == h2Data })
		return ok && string(f.payload) == "\x00\x00\x00\x00\x05alive" && r.wasAnswered(id, 0)
	}) {
		r.t.Errorf("another stream of the connection does not go on: %s", r.tail())
	}
}
