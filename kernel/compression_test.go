package kernel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// overCompressing runs f over every transport, and over other protocols that compress.
func overCompressing(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	overNative(t, so, co, f)
	for _, p := range foreigns {
		if p.proto.Caps().Compression.Has(pool.Gzip) && (p.name == "as-http2" || p.name == "everything") {
			t.Run(p.name, func(t *testing.T) { f(t, newWorld(t, p.start, so, co)) })
		}
	}
}

// codecs are the compressions that w's connection has.
func (w *world) codecs() (cs []pool.Compression) {
	for _, c := range []pool.Compression{pool.Gzip, pool.Zstd} {
		if w.caps.Compression.Has(c) {
			cs = append(cs, c)
		}
	}
	return cs
}

// prose is n bytes that can be compressed and don't repeat in a short period.
func prose(n int) []byte {
	p := make([]byte, 0, n+32)
	for i := 0; len(p) < n; i++ {
		p = fmt.Appendf(p, "message %d of the day; ", i*i)
	}
	return p[:n]
}

func static(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{7})
	_, _ = rng.Read(p)
	return p
}

var large = kernel.Limits{MaxMessage: 32 << 20, AssemblyBudget: 64 << 20}

// Messages of every size come out as they were sent, in order, among others that are not
// compressed.
func TestCompressedMessages(t *testing.T) {
	sizes := []int{0, 1, 64, 127, 128, 16 << 10, 1 << 20, 20 << 20}
	if raceEnabled {
		sizes[len(sizes)-1] = 5 << 20
	}
	overCompressing(t, &kernel.ServerOptions{Limits: large}, &kernel.ClientOptions{Limits: large}, func(t *testing.T, w *world) {
		var want [][]byte
		for _, n := range sizes {
			want = append(want, prose(n), static(min(n, 100_000)))
		}
		for _, c := range w.codecs() {
			a, b := w.Pair(kernel.StreamOptions{Compression: c}, kernel.StreamOptions{Compression: c})
			go func() {
				for i, p := range want {
					m := pool.Copy(p)
					switch i % 6 {
					case 3:
						m.SetCompression(pool.NoCompression)
					case 4:
						m.SetCompression(w.codecs()[0])
					}
					if err := a.Send(w.Ctx, m); err != nil {
						m.Release()
						t.Errorf("%s: message %d: %v", c, i, err)
						break
					}
				}
			}()
			for i, p := range want {
				m, err := b.Receive(w.Ctx)
				if err != nil {
					t.Fatalf("%s: message %d of %d bytes: %v", c, i, len(p), err)
				}
				if !bytes.Equal(m.Bytes(), p) {
					t.Errorf("%s: message %d: %d bytes, want %d", c, i, m.Len(), len(p))
				}
				m.Release()
			}
		}
	})
}

// countingConn counts what is written.
type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.Conn.Write(p)
}

// Each way to send takes few bytes of the wire, and so do requests and calls. What does not
// get shorter, or is not to be compressed, takes what it is.
func TestWhatIsCompressedIsShortOnTheWire(t *testing.T) {
	const size = 300 << 10
	var n atomic.Int64
	w := newWorld(t, loops, nil, &kernel.ClientOptions{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return countingConn{c, &n}, err
	}})
	w.Srv.Handle("read", func(ctx context.Context, s *kernel.Stream) error {
		for m, err := range s.All(ctx) {
			if err != nil {
				return err
			}
			if m.Len() != size {
				t.Errorf("a message of %d bytes", m.Len())
			}
			m.Release()
		}
		return nil
	})
	w.Srv.Handle("call", func(ctx context.Context, s *kernel.Stream) error {
		m, err := s.Receive(ctx)
		if err != nil {
			return err
		}
		if m.Len() != size {
			t.Errorf("a request of %d bytes", m.Len())
		}
		m.Release()
		return s.Send(ctx, text("ok"))
	})
	stream := func(c pool.Compression, send func(s *kernel.Stream, m pool.Message) error, p []byte, own pool.Compression) func() error {
		return func() error {
			s, err := w.Client.Open(w.Ctx, "read", &kernel.OpenOptions{Stream: kernel.StreamOptions{Compression: c}})
			if err != nil {
				return err
			}
			m := pool.Copy(p)
			m.SetCompression(own)
			return errors.Join(send(s, m), s.Close(w.Ctx))
		}
	}
	send := func(s *kernel.Stream, m pool.Message) error { return s.Send(w.Ctx, m) }
	for _, c := range []struct {
		name string
		do   func() error
		most int
	}{
		{"Send", stream(pool.Zstd, send, prose(size), 0), size / 4},
		{"Send, gzip", stream(pool.Gzip, send, prose(size), 0), size / 4},
		{"SendCopy", stream(pool.Zstd, func(s *kernel.Stream, m pool.Message) error {
			defer m.Release()
			return s.SendCopy(w.Ctx, m.Bytes())
		}, prose(size), 0), size / 4},
		{"TrySend", stream(pool.Zstd, (*kernel.Stream).TrySend, prose(size), 0), size / 4},
		{"Slot", stream(pool.Zstd, func(s *kernel.Stream, m pool.Message) error { return (<-s.Writable()).Send(m) }, prose(size), 0), size / 4},
		{"Out", stream(pool.Zstd, func(s *kernel.Stream, m pool.Message) error { s.Out() <- m; return nil }, prose(size), 0), size / 4},
		{"the message alone", stream(0, send, prose(size), pool.Zstd), size / 4},
		{"not this message", stream(pool.Zstd, send, prose(size), pool.NoCompression), 2 * size},
		{"nothing to gain", stream(pool.Zstd, send, static(size), 0), 2 * size},
		{"not at all", stream(0, send, prose(size), 0), 2 * size},
		{"a call", func() error {
			m, err := w.Client.Call(w.Ctx, "call", pool.MessageOf(prose(size)), &kernel.CallOptions{Compression: pool.Zstd})
			m.Release()
			return err
		}, size / 4},
	} {
		before := n.Load()
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got := int(n.Load() - before)
		if plain := c.most > size; got > c.most || plain && got < size {
			t.Errorf("%s: %d bytes of %d were written", c.name, got, size)
		}
	}
}

// A request, a reply and the answer of a call are compressed by the options of who sends
// them.
func TestRequestsAndRepliesAreCompressed(t *testing.T) {
	overCompressing(t, &kernel.ServerOptions{Stream: kernel.StreamOptions{Compression: pool.Gzip}}, nil, func(t *testing.T, w *world) {
		req, reply := prose(200<<10), prose(100<<10)
		w.Srv.HandleOffer("offer", func(ctx context.Context, o *kernel.Offer) error {
			m := testkit.RequestOf(t, o)
			if !bytes.Equal(m.Bytes(), req) {
				t.Errorf("a request of %d bytes", m.Len())
			}
			m.Release()
			s, err := o.Accept(pool.Copy(reply), &kernel.StreamOptions{Compression: pool.Gzip})
			if err != nil {
				return err
			}
			return s.Close(ctx)
		})
		w.Srv.Handle("call", func(ctx context.Context, s *kernel.Stream) error {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			defer m.Release()
			return s.Send(ctx, m.Clone())
		})
		s, err := w.Client.Open(w.Ctx, "offer", &kernel.OpenOptions{
			Request: pool.Copy(req), Stream: kernel.StreamOptions{Compression: pool.Gzip},
		})
		ok(t, err)
		got, _, err := s.Accepted(w.Ctx)
		if err != nil || !bytes.Equal(got.Bytes(), reply) {
			t.Errorf("a reply of %d bytes, %v", got.Len(), err)
		}
		got.Release()
		ok(t, s.Close(w.Ctx))
		got, err = w.Client.Call(w.Ctx, "call", pool.Copy(req), &kernel.CallOptions{Compression: pool.Gzip})
		if err != nil || !bytes.Equal(got.Bytes(), req) {
			t.Errorf("an answer of %d bytes, %v", got.Len(), err)
		}
		got.Release()
	})
}

// plainNative is the native protocol of a program from before there was compression: its
// HELLO does not have that setting.
type plainNative struct{ native.Protocol }

// Handshake implements frame.Protocol.
func (p plainNative) Handshake(ctx context.Context, rw io.ReadWriter, g *frame.Greeting) (frame.Session, error) {
	g.Own.Compression = 0
	return p.Protocol.Handshake(ctx, rw, g)
}

// A peer that does not say that it unpacks is sent nothing that is compressed. Who asks for
// that gets an error; a default of the client or server gives way.
func TestPeersWithoutCompression(t *testing.T) {
	old := []frame.Protocol{plainNative{}}
	def := kernel.StreamOptions{Compression: pool.Zstd}
	asked := kernel.StreamOptions{Compression: pool.Gzip}
	packed := func() pool.Message {
		m := pool.Copy(prose(1000))
		m.SetCompression(pool.Gzip)
		return m
	}
	t.Run("server", func(t *testing.T) {
		w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Protocols: old}, &kernel.ClientOptions{Stream: def})
		w.Srv.Handle("echo", echo)
		w.Call("echo", string(prose(1000)), string(prose(1000)))
		m := packed()
		defer m.Release()
		_, err := w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Stream: asked})
		isErr(t, "Open", err, kernel.ErrNotSupported)
		_, err = w.Client.Open(w.Ctx, "echo", &kernel.OpenOptions{Request: m})
		isErr(t, "Open with a request", err, kernel.ErrNotSupported)
		_, err = w.Client.OpenN(w.Ctx, "echo", nil, kernel.StreamOptions{}, asked)
		isErr(t, "OpenN", err, kernel.ErrNotSupported)
		_, err = w.Client.Call(w.Ctx, "echo", m, nil)
		isErr(t, "Call with a request", err, kernel.ErrNotSupported)
		m.SetCompression(0)
		_, err = w.Client.Call(w.Ctx, "echo", m, &kernel.CallOptions{Compression: pool.Gzip})
		isErr(t, "Call", err, kernel.ErrNotSupported)
	})
	t.Run("client", func(t *testing.T) {
		w := newWorld(t, kerneltest.Start, &kernel.ServerOptions{Stream: def}, &kernel.ClientOptions{Protocols: old})
		w.Srv.Handle("echo", echo)
		w.Call("echo", string(prose(1000)), string(prose(1000)))
		w.AskOffers()
		a, err := w.Client.Open(w.Ctx, "offer", nil)
		ok(t, err)
		m := packed()
		defer m.Release()
		o := w.Offer()
		_, err = o.Accept(pool.Message{}, &asked)
		isErr(t, "Accept", err, kernel.ErrNotSupported)
		_, err = o.Accept(m, nil)
		isErr(t, "Accept with a reply", err, kernel.ErrNotSupported)
		b, err := o.Accept(pool.Message{}, nil)
		ok(t, err)
		isErr(t, "Send", b.Send(w.Ctx, m), kernel.ErrNotSupported)
		w.Cleanup(a, b)
	})
}

// What no protocol can do is an error before there is a connection.
func TestCompressionThatNoProtocolHas(t *testing.T) {
	def := kernel.StreamOptions{Compression: pool.Zstd}
	brpc := []frame.Protocol{strm.Protocol{}}
	_, err := kernel.NewServer(&kernel.ServerOptions{Protocols: brpc, Stream: def})
	isErr(t, "NewServer", err, kernel.ErrNotSupported)
	_, err = kernel.NewClient("brpc://127.0.0.1:1", &kernel.ClientOptions{Protocols: brpc, Stream: def})
	isErr(t, "NewClient", err, kernel.ErrNotSupported)
	_, err = kernel.NewServer(&kernel.ServerOptions{Stream: kernel.StreamOptions{Compression: 9}})
	isErr(t, "an unknown one", err, kernel.ErrLimits)
}

// Over brpc calls are compressed with gzip, and streams are not.
func TestCompressionOverBrpc(t *testing.T) {
	w := newWorld(t, foreigns[0].start, &kernel.ServerOptions{Stream: kernel.StreamOptions{Compression: pool.Gzip}}, nil)
	how := make(chan string, 1)
	w.Srv.Handle("S.echo", func(ctx context.Context, s *kernel.Stream) error {
		how <- s.Metadata().Get(strm.KeyCompress)
		return echo(ctx, s)
	})
	p := prose(100 << 10)
	s, err := w.Client.Open(w.Ctx, "S.echo", &kernel.OpenOptions{Stream: kernel.StreamOptions{Compression: pool.Gzip}})
	isErr(t, "Open", err, kernel.ErrNotSupported)
	if s != nil {
		s.Abort(status.Cancelled, "over")
	}
	for _, c := range []struct {
		opts *kernel.CallOptions
		want string
	}{{nil, ""}, {&kernel.CallOptions{Compression: pool.Gzip}, "gzip"}} {
		got, err := w.Client.Call(w.Ctx, "S.echo", pool.Copy(p), c.opts)
		if how := testkit.Handled(w.World, how); err != nil || !bytes.Equal(got.Bytes(), p) || how != c.want {
			t.Errorf("compressed with %q, want %q; an answer of %d bytes, %v", how, c.want, got.Len(), err)
		}
		got.Release()
	}
	m := pool.Copy(p)
	_, err = w.Client.Call(w.Ctx, "S.echo", m, &kernel.CallOptions{
		Compression: pool.Gzip, Metadata: metadata.MD{{Key: strm.KeyCompress, Value: "snappy"}},
	})
	wantCode(t, err, status.InvalidArgument)
	m.Release()
}

// asOnTheWire is a compressed message that says that it holds total bytes.
func asOnTheWire(number, total uint64, body []byte) pool.Message {
	b := binary.AppendUvarint(nil, number)
	m := pool.MessageOf(append(binary.AppendUvarint(b, total), body...))
	pool.MarkPacked(m)
	return m
}

const gzipNumber, zstdNumber = 1, 2

// bombs hold n zeros.
func bombs(t *testing.T, n int) map[uint64][]byte {
	t.Helper()
	var z, g bytes.Buffer
	zw, err := zstd.NewWriter(&z, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	ok(t, err)
	gw, err := gzip.NewWriterLevel(&g, gzip.BestSpeed)
	ok(t, err)
	zeros := make([]byte, 1<<20)
	for range n >> 20 {
		_, err = zw.Write(zeros)
		ok(t, err)
		_, err = gw.Write(zeros)
		ok(t, err)
	}
	ok(t, zw.Close())
	ok(t, gw.Close())
	return map[uint64][]byte{gzipNumber: g.Bytes(), zstdNumber: z.Bytes()}
}

// A gigabyte of zeros ends its stream, whatever it says to be, and takes no more memory
// than a message may have.
func TestABombEndsItsStreamInBoundedMemory(t *testing.T) {
	size := 1 << 30
	if raceEnabled {
		size = 64 << 20
	}
	for number, bomb := range bombs(t, size) {
		for _, c := range []struct {
			total uint64
			code  status.Code
		}{
			{uint64(size), status.TooLarge}, {1<<64 - 1, status.TooLarge}, {4<<20 + 1, status.TooLarge},
			{4 << 20, status.DataLoss}, {0, status.DataLoss},
		} {
			t.Run(fmt.Sprintf("%d/%d", number, c.total), func(t *testing.T) {
				w := newWorld(t, kerneltest.Start, nil, nil)
				a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				other, there := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
				m := asOnTheWire(number, c.total, bomb)
				w.SendMessage(a, m)
				w.Eventually("the bomb", func() bool { return unreadOf(b.Conn()) >= m.Len() || b.Err() != nil })
				took := allocated(func() { w.WantErr(b, c.code) })
				if took > 12<<20 { // a decoder may go beyond the end by a block, in memory of its own
					t.Errorf("%d bytes were allocated", took)
				}
				w.WantDone(a)
				w.WantErr(a, c.code)
				w.Send(other, "as before")
				w.Want(there, "as before")
			})
		}
	}
}

// Bytes that are not what they say to be end their stream, and no other.
func TestCorruptCompressedMessages(t *testing.T) {
	p := prose(10_000)
	valid := map[uint64][]byte{}
	for number, c := range map[uint64]pool.Compression{gzipNumber: pool.Gzip, zstdNumber: pool.Zstd} {
		sess := native.New(native.DefaultMaxFragment)
		m := sess.Pack(pool.MessageOf(p), c)
		_, n := binary.Uvarint(m.Bytes())
		_, k := binary.Uvarint(m.Bytes()[n:])
		valid[number] = bytes.Clone(m.Bytes()[n+k:])
		m.Release()
	}
	w := newWorld(t, kerneltest.Start, nil, nil)
	other, there := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
	empty := pool.MessageOf(nil)
	pool.MarkPacked(empty)
	rows := map[string]pool.Message{
		"empty": empty, "unknown": asOnTheWire(3, 5, []byte("abcde")), "number 0": asOnTheWire(0, 5, []byte("abcde")),
	}
	for number, b := range valid {
		flipped := bytes.Clone(b)
		flipped[len(b)/2] ^= 0x55
		rows[fmt.Sprint(number, " nothing")] = asOnTheWire(number, uint64(len(p)), nil)
		rows[fmt.Sprint(number, " cut")] = asOnTheWire(number, uint64(len(p)), b[:len(b)-9])
		rows[fmt.Sprint(number, " longer")] = asOnTheWire(number, uint64(len(p))-1, b)
		rows[fmt.Sprint(number, " shorter")] = asOnTheWire(number, uint64(len(p))+1, b)
		rows[fmt.Sprint(number, " bytes behind")] = asOnTheWire(number, uint64(len(p)), append(bytes.Clone(b), 1, 2, 3))
		rows[fmt.Sprint(number, " of the other")] = asOnTheWire(3-number, uint64(len(p)), b)
		rows[fmt.Sprint(number, " first bytes")] = asOnTheWire(number, uint64(len(p)), append([]byte{1, 2, 3, 4}, b[4:]...))
	}
	for name, m := range rows {
		t.Run(name, func(t *testing.T) {
			a, b := w.Pair(kernel.StreamOptions{}, kernel.StreamOptions{})
			w.SendMessage(a, m)
			w.WantErr(b, status.DataLoss)
			w.WantErr(a, status.DataLoss)
			w.Send(other, "as before")
			w.Want(there, "as before")
		})
	}
}

// The zero of a message's choice is its stream's, and copies keep the choice.
func TestTheChoiceOfAMessage(t *testing.T) {
	m := pool.Copy([]byte("abc"))
	m.SetCompression(pool.Zstd)
	for name, c := range map[string]pool.Message{"itself": m, "Share": m.Share(), "Clone": m.Clone()} {
		if got := pool.CompressionOf(c); got != pool.Zstd {
			t.Errorf("%s: %v", name, got)
		}
		c.Release()
	}
	n := pool.Copy([]byte("abc")) // perhaps in the same memory
	if got := pool.CompressionOf(n); got != 0 {
		t.Errorf("a new message: %v", got)
	}
	n.Release()
	pool.Message{}.SetCompression(pool.Zstd)
	for c, want := range map[pool.Compression]string{pool.NoCompression: "none", pool.Gzip: "gzip", pool.Zstd: "zstd", 9: "Compression(9)"} {
		if c.String() != want {
			t.Errorf("%q, want %q", c, want)
		}
	}
}

// Throughput of one stream over TCP, with messages of 64 KiB that shrink to a fifth.
func BenchmarkCompression(b *testing.B) {
	for _, c := range []pool.Compression{pool.NoCompression, pool.Gzip, pool.Zstd} {
		b.Run(c.String(), func(b *testing.B) {
			p := prose(64 << 10)
			w := newWorld(b, loops, nil, nil)
			got := make(chan int, 1)
			w.Srv.Handle("read", func(ctx context.Context, s *kernel.Stream) error {
				n := 0
				for m, err := range s.All(ctx) {
					if err != nil {
						return err
					}
					n++
					m.Release()
				}
				got <- n
				return nil
			})
			s, err := w.Client.Open(w.Ctx, "read", &kernel.OpenOptions{Stream: kernel.StreamOptions{Compression: c}})
			ok(b, err)
			b.SetBytes(int64(len(p)))
			n := 0
			for b.Loop() {
				w.SendMessage(s, pool.MessageOf(p))
				n++
			}
			ok(b, s.Close(w.Ctx))
			if k := testkit.Handled(w.World, got); k != n {
				b.Errorf("%d messages of %d", k, n)
			}
		})
	}
}
