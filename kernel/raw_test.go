package kernel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// A target is a server under attack.
type target struct{ *testkit.Target }

func newTarget(t *testing.T, bubble bool, opts kernel.ServerOptions) *target {
	t.Helper()
	return &target{testkit.NewTarget(t, bubble, opts)}
}

// A heard is a frame that the attacker was sent.
type heard struct {
	kind   frame.Kind
	stream uint64
	value  uint64
	code   status.Code
	reason string
	fresh  bool // not processed
	fields int  // of metadata
	data   []byte
	last   bool
}

// raw is a client that sends any bytes.
type raw struct {
	tg   *target
	t    *testing.T
	nc   net.Conn
	sess *native.Session // reads what the server says, and encodes
	cost *native.Session // follows what we send
	peer frame.Settings
	next uint64

	magic int // bytes of it still to come

	mu     sync.Mutex
	heard  []heard
	err    error  // how the connection ended; nil while it has not
	credit uint64 // of the connection, in all
	spent  uint64
	read   uint64 // bytes

}

// hello is the settings of a raw client, unless a row has its own.
func hello() frame.Settings {
	return frame.Settings{
		MaxFragment: native.DefaultMaxFragment, MaxMessage: 4 << 20, MaxStreams: 100, MaxMetadata: 16 << 10,
		InitialCredit: 1 << 20, ConnCredit: 1 << 30,
	}
}

// attack connects, shakes hands and listens.
func (tg *target) attack(own frame.Settings) *raw {
	tg.T.Helper()
	r := tg.silent(own)
	go r.listen()
	return r
}

// unheard connects and sends nothing.
func (tg *target) unheard() *raw {
	tg.T.Helper()
	// The server's side of a handshake starts with the magic, as ours does: it is
	// taken off before frames are read.
	r := &raw{tg: tg, t: tg.T, nc: tg.Connect(), next: 1, cost: native.New(1 << 20), sess: native.New(1 << 20), magic: len(native.Magic)}
	r.sess.SetChecksum(true) // until the HELLO
	return r
}

func (r *raw) bytesRead() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read
}

// silent shakes hands and never reads again.
func (tg *target) silent(own frame.Settings) *raw {
	tg.T.Helper()
	r := &raw{tg: tg, t: tg.T, nc: tg.Connect(), next: 1, cost: native.New(1 << 20)}
	g := &frame.Greeting{Client: true, Own: own}
	sess, err := native.Protocol{}.Handshake(context.Background(), r.nc, g)
	if err != nil {
		tg.T.Fatal(err)
	}
	r.sess, r.peer, r.credit = sess.(*native.Session), g.Peer, g.Peer.ConnCredit
	if len(g.Early) > 0 {
		r.take(g.Early)
	}
	return r
}

func (r *raw) listen() {
	p := make([]byte, 64<<10)
	for {
		n, err := r.nc.Read(p)
		r.take(p[:n])
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
	}
}

func (r *raw) take(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += uint64(len(p))
	skip := min(r.magic, len(p))
	r.magic -= skip
	p = p[skip:]
	var f frame.Frame
	for {
		n, err := r.sess.Next(p, &f)
		p = p[n:]
		if err != nil || f.Kind == frame.None {
			if err != nil {
				r.err = err
			}
			return
		}
		h := heard{kind: f.Kind, stream: f.Stream, value: f.Value, code: f.Code, reason: f.Reason, fresh: f.NotProcessed}
		if f.Kind == frame.Reject {
			h.fields = len(f.Metadata)
		}
		if f.Kind == frame.Data {
			h.data, h.last = append([]byte(nil), f.Payload...), f.Last
		}
		if f.Kind == frame.Credit && f.Stream == 0 {
			r.credit = max(r.credit, f.Value)
		}
		if f.Kind == frame.Hello {
			r.sess.SetChecksum(false) // hello has no Checksum
		}
		r.heard = append(r.heard, h)
	}
}

// find returns the first frame of a kind for a stream.
func (r *raw) find(k frame.Kind, id uint64) (heard, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.heard, func(h heard) bool { return h.kind == k && h.stream == id })
	if i < 0 {
		return heard{}, false
	}
	return r.heard[i], true
}

func (r *raw) count(k frame.Kind) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.heard {
		if h.kind == k {
			n++
		}
	}
	return n
}

// over returns how the connection ended, nil if it has not.
func (r *raw) over() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// write sends bytes as they are. It fails when the server has closed the connection, as it
// does in a flood.
func (r *raw) write(b []byte) error {
	r.book(b)
	_, err := r.nc.Write(b)
	return err
}

// book counts the credit that b uses.
func (r *raw) book(b []byte) {
	var f frame.Frame
	for {
		n, err := r.cost.Next(b, &f)
		b = b[n:]
		if err != nil || f.Kind == frame.None {
			return
		}
		if f.Kind == frame.Data {
			n := len(f.Payload)
			if f.First {
				n += messageOverhead
			}
			r.mu.Lock()
			r.spent += uint64(n)
			r.mu.Unlock()
		}
	}
}

// say sends frames.
func (r *raw) say(fs ...frame.Frame) {
	r.t.Helper()
	var b []byte
	for i := range fs {
		b = append(b, wire(&fs[i])...)
	}
	if err := r.write(b); err != nil {
		r.t.Logf("write: %v", err)
	}
}

// wire is a control frame's bytes, outside any record.
func wire(f *frame.Frame) []byte {
	var o frame.Out
	native.New(0).Control(&o, f)
	return o.Buf
}

// record is a record of frames.
func record(frames []byte) []byte {
	head := recordHead(len(frames))
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	_, _ = crc.Write(head)
	_, _ = crc.Write(frames)
	return append(binary.LittleEndian.AppendUint32(head, crc.Sum32()), frames...)
}

// recordHead is the length of a record and its CRC-8.
func recordHead(n int) []byte {
	head := []byte{byte(n), byte(n >> 8), byte(n >> 16)}
	crc := byte(0xff)
	for _, b := range head {
		crc ^= b
		for range 8 {
			crc = crc>>1 ^ 0xe0&-(crc&1)
		}
	}
	return append(head, crc)
}

// greeting is the start of a connection: magic, and a record of frames.
func greeting(frames ...[]byte) []byte { return join([]byte(native.Magic), record(join(frames...))) }

// The types and flags that data frames are made of by hand.
const (
	typeData = 4
	flagMore = 0x20
	flagCont = 0x40
)

// head is a frame's header, whatever the length says.
func head(length int, typ byte, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, uint64(length)|uint64(typ)<<24|id<<32)
}

// data is a whole message.
func data(id uint64, p []byte) []byte { return append(head(len(p), typeData, id), p...) }

// first is a message's first fragment.
func first(id uint64, total int, p []byte) []byte {
	b := head(len(p)+4, typeData|flagMore, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(total))
	return append(b, p...)
}

// more is a fragment that is not the first.
func more(id uint64, p []byte, last bool) []byte {
	t := byte(typeData | flagCont)
	if !last {
		t |= flagMore
	}
	return append(head(len(p), t, id), p...)
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func openFrame(id uint64, method string) frame.Frame {
	return frame.Frame{Kind: frame.Open, Stream: id, Method: method, Grants: []frame.Grant{{Credit: 1 << 20}}}
}

// open opens a stream and waits for nothing.
func (r *raw) open(method string) uint64 {
	r.t.Helper()
	id := r.next
	r.next += 2
	r.say(openFrame(id, method))
	return id
}

// echoes checks that a new stream of the same connection works.
func (r *raw) echoes() {
	r.t.Helper()
	id := r.open("echo")
	for end := time.Now().Add(testkit.Patience / 4); ; {
		if err := r.write(join(data(id, []byte("alive")), wire(&frame.Frame{Kind: frame.EOS, Stream: id}))); err != nil {
			r.t.Fatalf("another stream of the connection: %v", err)
		}
		refused := false
		if !r.tg.Settle(func() bool {
			h, ok := r.find(frame.Data, id)
			_, end := r.find(frame.EOS, id)
			_, refused = r.find(frame.Reject, id)
			return refused || ok && end && string(h.data) == "alive"
		}) {
			r.t.Fatalf("another stream of the connection does not go on: %v", r.tail())
		}
		if !refused {
			break
		}
		if r.tg.Bubble || time.Now().After(end) {
			r.t.Fatalf("another stream of the connection is refused: %v", r.tail())
		}
		time.Sleep(10 * time.Millisecond) // handlers of streams that were reset have yet to return
		id = r.open("echo")
	}
	r.say(frame.Frame{Kind: frame.Ended, Stream: id, Value: 1})
}

// tail is what was heard last, for messages.
func (r *raw) tail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := fmt.Sprintf("over: %v;", r.err)
	for _, h := range r.heard[max(len(r.heard)-6, 0):] {
		s += fmt.Sprintf(" {kind %d stream %d value %d code %v %q, %d bytes}", h.kind, h.stream, h.value, h.code, h.reason, len(h.data))
	}
	return s
}

// ended tells whether the connection ended by a GOAWAY of code.
func (r *raw) ended(code status.Code) bool {
	h, ok := r.find(frame.GoAway, 0)
	return ok && h.code == code && errors.Is(r.over(), io.EOF)
}

// settled resets what is open and checks that all credit of the connection is
// back.
func (r *raw) settled() {
	r.t.Helper()
	for id := uint64(1); id < r.next; id += 2 {
		if _, ok := r.find(frame.Reset, id); !ok {
			r.say(frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Cancelled})
		}
	}
	var left uint64
	if !r.tg.Settle(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		left = r.credit - r.spent
		return left == r.peer.ConnCredit
	}) {
		r.t.Errorf("%d bytes of the connection's credit are left of %d: %s", left, r.peer.ConnCredit, r.tail())
	}
}

// messageOverhead is what a message costs of the native protocol's credit beside its
// length.
const messageOverhead = 32
