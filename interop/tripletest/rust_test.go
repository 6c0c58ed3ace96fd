package tripletest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluicerpc/sluice/interop/check"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/rpc"
	"github.com/sluicerpc/sluice/status"
)

// What stands in this file for dubbo-rust is an emulation: it does on the wire what the sources of
// apache/dubbo-rust do, as of July 2024, and no program of theirs was run.

const rustVersion = "dubbo-rust/0.1.0"

// A rust is one side of a connection of dubbo-rust's.
type rust struct {
	nc     net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
}

func newRust(nc net.Conn) *rust {
	r := &rust{nc: nc, framer: http2.NewFramer(nc, nc)}
	r.enc = hpack.NewEncoder(&r.block)
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return r
}

// begin writes SETTINGS, with windows that nothing here fills.
func (r *rust) begin() error {
	return errors.Join(
		r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}),
		r.framer.WriteWindowUpdate(0, 1<<30),
	)
}

// headers writes HEADERS of names and values.
func (r *rust) headers(id uint32, end bool, fields ...string) error {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true, EndStream: end})
}

// message writes one, with flag 1 if it is compressed.
func (r *rust) message(id uint32, s string, compress bool) error {
	p, err := proto.Marshal(wrapperspb.String(s))
	if err != nil {
		return err
	}
	b := make([]byte, 5, 5+len(p))
	if compress {
		b[0] = 1
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(p); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		p = z.Bytes()
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(p)))
	return r.framer.WriteData(id, false, append(b, p...))
}

// read reads a frame that is of a stream. It answers those of the connection.
func (r *rust) read() (http2.Frame, error) {
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = r.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = r.framer.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
		default:
			return f, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// A half is what has come on a stream.
type half struct {
	header, trailer []hpack.HeaderField
	data            []byte
	ended           bool
}

// take adds a frame.
func (h *half) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		if h.header == nil {
			h.header = slices.Clone(f.Fields)
		} else {
			h.trailer = slices.Clone(f.Fields)
		}
		h.ended = f.StreamEnded()
	case *http2.DataFrame:
		h.data = append(h.data, f.Data()...)
		h.ended = f.StreamEnded()
	default:
		return fmt.Errorf("a frame %v", f)
	}
	return nil
}

// next cuts off a message, if there is a whole one. A flag other than 0 and 1 is an error, and so is
// 1 without gzip in the headers.
func (h *half) next() (s string, ok bool, err error) {
	if len(h.data) < 5 || len(h.data)-5 < int(binary.BigEndian.Uint32(h.data[1:])) {
		return "", false, nil
	}
	flag, n := h.data[0], 5+int(binary.BigEndian.Uint32(h.data[1:]))
	p := h.data[5:n]
	h.data = h.data[n:]
	switch {
	case flag > 1 || flag == 1 && field(h.header, "grpc-encoding") != "gzip":
		return "", false, fmt.Errorf("flag %d, grpc-encoding %q", flag, field(h.header, "grpc-encoding"))
	case flag == 1:
		z, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return "", false, err
		}
		if p, err = io.ReadAll(z); err != nil {
			return "", false, err
		}
	}
	var v wrapperspb.StringValue
	err = proto.Unmarshal(p, &v)
	return v.Value, true, err
}

// field is the value of a header, or "".
func field(fields []hpack.HeaderField, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// A rustClient has one stream at a time.
type rustClient struct {
	*rust
	t    *testing.T
	addr string
	last uint32
	in   half
}

// dialRust connects what stands for a client of dubbo-rust's.
func dialRust(t *testing.T, addr string) *rustClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	c := &rustClient{rust: newRust(nc), t: t, addr: addr}
	_, err = io.WriteString(nc, http2.ClientPreface)
	c.ok(errors.Join(err, nc.SetDeadline(time.Now().Add(20*time.Second)), c.begin()))
	return c
}

func (c *rustClient) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// open opens the next stream, with headers as TripleClient::map_request makes them: those of
// HTTP/2's own once more as ordinary ones, and always gzip.
func (c *rustClient) open(service, method string) {
	c.t.Helper()
	if c.last += 2; c.last == 2 {
		c.last = 1
	}
	c.in = half{}
	path := "/" + service + "/" + method
	c.ok(c.headers(c.last, false,
		":method", "POST", ":scheme", "http", ":authority", c.addr, ":path", path,
		"method", "POST", "scheme", "http", "path", path, "authority", c.addr,
		"content-type", "application/grpc+proto", "user-agent", rustVersion, "te", "trailers",
		"tri-service-version", rustVersion, "tri-service-group", "cluster", "tri-unit-info", rustVersion,
		"grpc-encoding", "gzip", "grpc-accept-encoding", "gzip",
	))
}

// send sends names, each compressed, and ends the half if that is the last.
func (c *rustClient) send(last bool, names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.ok(c.message(c.last, name, true))
	}
	if last {
		c.ok(c.framer.WriteData(c.last, true, nil))
	}
}

// receive returns the next message; ok is false at the end.
func (c *rustClient) receive() (s string, ok bool) {
	c.t.Helper()
	for {
		s, ok, err := c.in.next()
		c.ok(err)
		if ok || c.in.ended {
			return s, ok
		}
		f, err := c.read()
		c.ok(err)
		id := f.Header().StreamID
		if r, ok := f.(*http2.RSTStreamFrame); ok && id < c.last && r.ErrCode == http2.ErrCodeNo {
			continue // of a stream that has ended before its request had
		}
		if id != c.last {
			c.t.Fatalf("a frame of stream %d: %v", id, f)
		}
		c.ok(c.in.take(f))
	}
}

// want receives messages.
func (c *rustClient) want(messages ...string) {
	c.t.Helper()
	for _, want := range messages {
		if got, ok := c.receive(); !ok || got != want {
			c.t.Errorf("received %q, %v, want %q", got, ok, want)
		}
	}
}

// wantEnd receives the end, which has a status and, unless that is 0, a text: dubbo-rust's program
// must find it in the trailers, or in the headers where there is nothing else.
func (c *rustClient) wantEnd(code string) {
	c.t.Helper()
	if s, ok := c.receive(); ok {
		c.t.Errorf("received %q in place of the end", s)
	}
	fields := slices.Concat(c.in.header, c.in.trailer)
	if field(c.in.header, ":status") != "200" || field(fields, "grpc-status") != code || code != "0" && field(fields, "grpc-message") == "" {
		c.t.Errorf("the end is %v, want status %s", fields, code)
	}
}

// A client of dubbo-rust's is served, whether our server compresses or not. Version and group are
// looked at where a service is registered with them alone.
func TestDubboRustClientEmulated(t *testing.T) {
	for name, compression := range map[string]pool.Compression{"plain replies": pool.NoCompression, "compressed replies": pool.Gzip} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat("Ada ", 100)
			c := dialRust(t, start(t, compression))
			c.open(greeter, "greet")
			c.send(true, long)
			c.want("hello " + long)
			c.wantEnd("0")
			if got := field(c.in.header, "grpc-encoding"); (got == "gzip") != (compression == pool.Gzip) {
				t.Errorf("grpc-encoding of the reply is %q", got)
			}

			c.open(greeter, "greetClientStream")
			c.send(true, "Ada", "Bob", "Eve")
			c.want("hello all 3")
			c.wantEnd("0")

			c.open(greeter, "greetServerStream")
			c.send(true, long)
			c.want(slices.Repeat([]string{"hello " + long}, many)...)
			c.wantEnd("0")

			c.open(greeter, "greetStream")
			for range 3 {
				c.send(false, long)
				c.want("hello " + long)
			}
			c.send(true)
			c.wantEnd("0")

			c.open(greeter, "greet")
			c.send(true, "error")
			c.wantEnd("9")

			c.open(greeter, "greetStream")
			c.send(false, "Ada", "error")
			c.want("hello Ada")
			c.wantEnd("9")

			c.open(versioned, "greet")
			c.send(false)
			c.wantEnd("12")

			c.open(greeter, "greetNobody")
			c.send(false)
			c.wantEnd("12")

			c.open(greeter, "greet")
			c.send(true, "Ada")
			c.want("hello Ada")
			c.wantEnd("0")
		})
	}
}

// rustReason is the message of an error of a server of dubbo-rust's: it is sent as it is, and can't
// have letters beyond ASCII.
const rustReason = "100% no: 5%20 off"

// rustMany is how many replies a stream of theirs has: so few that they fit into the first window,
// for windows are none of the emulation's.
const rustMany = 50

// rustServer is what stands for a server of dubbo-rust's on one connection. Its errors are what the
// client does wrong.
type rustServer struct {
	*rust
	streams map[uint32]*rustStream
}

type rustStream struct {
	half
	method  string
	names   int
	replies bool // the headers of the reply are out
	over    bool
}

// serveRust accepts one connection and serves it until it ends.
func serveRust(ln net.Listener) error {
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	s := &rustServer{newRust(nc), map[uint32]*rustStream{}}
	if err := s.begin(); err != nil {
		return err
	}
	for {
		f, err := s.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.frame(f)
		}
		if err != nil {
			return err
		}
	}
}

func (s *rustServer) frame(f http2.Frame) error {
	id := f.Header().StreamID
	switch f.(type) {
	case *http2.GoAwayFrame:
		return nil
	case *http2.RSTStreamFrame:
		s.streams[id].over = true
		return nil
	case *http2.MetaHeadersFrame:
		s.streams[id] = &rustStream{}
	}
	st := s.streams[id]
	if err := st.take(f); err != nil {
		return err
	}
	if st.method == "" {
		service, method, _ := strings.Cut(strings.TrimPrefix(field(st.header, ":path"), "/"), "/")
		st.method = method
		known := service == greeter && slices.Contains([]string{"greet", "greetClientStream", "greetServerStream", "greetStream"}, method)
		if !known {
			st.over = true
			return s.headers(id, true, ":status", "200", "grpc-status", "12", "content-type", "application/grpc")
		}
		if method == "greetStream" {
			if err := s.begins(id, st); err != nil {
				return err
			}
		}
	}
	for !st.over {
		name, ok, err := st.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := s.name(id, st, name); err != nil {
			return err
		}
	}
	if st.ended && !st.over {
		return s.end(id, st)
	}
	return nil
}

// name does what a name asks for.
func (s *rustServer) name(id uint32, st *rustStream, name string) error {
	st.names++
	switch {
	case name == "error":
		st.over = true
		trailer := rustStatus("9", rustReason)
		if !st.replies {
			trailer = append([]string{":status", "200"}, trailer...)
		}
		return s.headers(id, true, trailer...)
	case st.method == "greetClientStream":
		return nil
	}
	replies := 1
	if st.method == "greetServerStream" {
		replies = rustMany
	}
	for range replies {
		if err := s.reply(id, st, "hello "+name); err != nil {
			return err
		}
	}
	return nil
}

// end ends a stream whose client has ended its half.
func (s *rustServer) end(id uint32, st *rustStream) error {
	if st.method == "greetClientStream" {
		if err := s.reply(id, st, fmt.Sprintf("hello all %d", st.names)); err != nil {
			return err
		}
	}
	st.over = true
	return s.headers(id, true, rustStatus("0", "poll trailer successfully.")...)
}

// rustStatus is what Status::to_http makes, as headers and as trailers.
func rustStatus(code, message string) []string {
	return []string{"content-type", "application/grpc", "grpc-status", code, "grpc-message", message, "grpc-accept-encoding", "gzip,identity"}
}

// begins writes the headers of the reply. They announce gzip if the client accepts it.
func (s *rustServer) begins(id uint32, st *rustStream) error {
	if st.replies {
		return nil
	}
	st.replies = true
	h := []string{":status", "200", "content-type", field(st.header, "content-type"), "date", "Tue, 02 Jul 2024 11:00:49 GMT"}
	if st.accepts() {
		h = append(h, "grpc-encoding", "gzip")
	}
	return s.headers(id, false, h...)
}

// accepts reports whether the client accepts gzip.
func (st *rustStream) accepts() bool {
	return slices.Contains(strings.Split(field(st.header, "grpc-accept-encoding"), ","), "gzip")
}

// reply sends a message. One reply is compressed if the client accepts it, and those of a stream if
// the requests are: what the headers say is another matter.
func (s *rustServer) reply(id uint32, st *rustStream, text string) error {
	if err := s.begins(id, st); err != nil {
		return err
	}
	compress := st.accepts()
	if st.method == "greetServerStream" || st.method == "greetStream" {
		compress = field(st.header, "grpc-encoding") == "gzip"
	}
	return s.message(id, text, compress)
}

// Our client takes what a server of dubbo-rust's sends: the replies of streams are compressed if the
// requests are, whatever the headers announce.
func TestDubboRustServerEmulated(t *testing.T) {
	ln := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- serveRust(ln)
		_ = ln.Close() // another connection is refused
	}()
	t.Run("calls", func(t *testing.T) {
		c := dial(t, ln.Addr().String())
		cases := []check.Case{
			{Name: "unary", Run: unary}, {Name: "client stream", Run: clientStream}, {Name: "server stream", Run: rustServerStream},
			{Name: "bidi stream", Run: bidiStream}, {Name: "unknown method", Run: unknownMethod}, {Name: "cancel", Run: cancelled},
			{Name: "error", Run: rustError}, {Name: "error behind a reply", Run: rustStreamError},
			{Name: "compressed", Run: rustCompressed}, {Name: "after all", Run: unary},
		}
		if err := check.Run(t.Context(), c, cases, &lines{t}); err != nil {
			t.Error(err)
		}
	})
	if err := <-served; err != nil {
		t.Errorf("what our client sends: %v", err)
	}
}

func rustServerStream(ctx context.Context, c *kernel.Client) error {
	in, err := rpc.CallServerStream[text](ctx, c, greeter+"/greetServerStream", wrapperspb.String("Ada"), nil)
	if err != nil {
		return err
	}
	n := 0
	for reply, err := range in.All(ctx) {
		if err == nil {
			err = check.Equal("a reply", reply.Value, "hello Ada")
		}
		if err != nil {
			return err
		}
		n++
	}
	return check.Equal("the number of replies", n, rustMany)
}

func rustError(ctx context.Context, c *kernel.Client) error {
	_, err := say(ctx, c, greeter, "error", kernel.CallOptions{})
	return isCode(err, status.FailedPrecondition, "100% no: 5  off")
}

func rustStreamError(ctx context.Context, c *kernel.Client) error {
	b, err := rpc.CallBidi[text, text](ctx, c, greeter+"/greetStream", nil)
	if err != nil {
		return err
	}
	for _, name := range []string{"Ada", "error"} {
		if err := b.Out.Send(ctx, wrapperspb.String(name)); err != nil {
			return err
		}
	}
	if _, err := b.In.Receive(ctx); err != nil {
		return err
	}
	_, err = b.In.Receive(ctx)
	return isCode(err, status.FailedPrecondition, "100% no: 5  off")
}

// rustCompressed has requests compressed, so that the replies of streams are too.
func rustCompressed(ctx context.Context, c *kernel.Client) error {
	name := strings.Repeat("Ada ", 100)
	if err := wants(ctx, c, greeter, name, "hello "+name, kernel.CallOptions{Compression: pool.Gzip}); err != nil {
		return err
	}
	b, err := rpc.CallBidi[text, text](ctx, c, greeter+"/greetStream", &rpc.OpenOptions{
		OpenOptions: kernel.OpenOptions{Stream: kernel.StreamOptions{Compression: pool.Gzip}},
	})
	if err != nil {
		return err
	}
	for range 3 {
		if err := b.Out.Send(ctx, wrapperspb.String(name)); err != nil {
			return err
		}
		reply, err := b.In.Receive(ctx)
		if err != nil {
			return err
		}
		if err := check.Equal("a reply", reply.Value, "hello "+name); err != nil {
			return err
		}
	}
	if err := b.Out.CloseSend(); err != nil {
		return err
	}
	if _, err := b.In.Receive(ctx); err != io.EOF {
		return fmt.Errorf("behind the last reply: %v", err)
	}
	return nil
}
