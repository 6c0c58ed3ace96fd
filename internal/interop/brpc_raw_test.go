package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicerpc/sluice/conn"
	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
)

// brpc's wire by hand: what a peer may say, and what it heard. docs/interop.md
// and frame/strm tell what the numbers are.

// Types of stream frames.
const (
	brpcRST      = 1
	brpcClose    = 2
	brpcData     = 3
	brpcFeedback = 4
)

// num and str are fields of a message.
func num(n protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), uint64(v))
}

func str[T string | []byte](n protowire.Number, v T) []byte {
	return append(protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.BytesType), uint64(len(v))), v...)
}

// packed is a packet or frame whose header is right.
func packed(magic string, meta, payload []byte) []byte {
	b := append(packedHead(magic, len(meta)+len(payload), len(meta)), meta...)
	return append(b, payload...)
}

func packedHead(magic string, body, meta int) []byte {
	b := binary.BigEndian.AppendUint32([]byte(magic), uint32(body))
	return binary.BigEndian.AppendUint32(b, uint32(meta))
}

// strmFrame is a frame for stream to, from stream from unless that is negative.
func strmFrame(typ, to, from int64, more bool, data string) []byte {
	meta := num(1, to)
	if from >= 0 {
		meta = append(meta, num(2, from)...)
	}
	meta = append(meta, num(3, typ)...)
	if more {
		meta = append(meta, num(4, 1)...)
	}
	return packed("STRM", meta, []byte(data))
}

func strmData(to, from int64, data string) []byte { return strmFrame(brpcData, to, from, false, data) }

func strmFeedback(to, from, consumed int64) []byte {
	return packed("STRM", join(num(1, to), num(2, from), num(3, brpcFeedback), str(5, num(1, consumed))), nil)
}

// A brpcAsk is a request.
type brpcAsk struct {
	service, method string
	id              int64 // correlation
	streams         []int64
	quiet, deaf     bool // need_feedback and writable are not set
	payload         string
	timeout         int64 // milliseconds
	meta            []byte
}

func (a brpcAsk) bytes() []byte {
	req := join(str(1, a.service), str(2, a.method))
	if a.timeout > 0 {
		req = append(req, num(8, a.timeout)...)
	}
	meta := join(str(1, req), num(4, a.id))
	if len(a.streams) > 0 {
		meta = append(meta, brpcSettings(a.streams, !a.quiet, !a.deaf)...)
	}
	return packed("PRPC", append(meta, a.meta...), []byte(a.payload))
}

func brpcSettings(streams []int64, feedback, writable bool) []byte {
	var s []byte
	s = append(s, num(1, streams[0])...)
	if feedback {
		s = append(s, num(2, 1)...)
	}
	if writable {
		s = append(s, num(3, 1)...)
	}
	for _, id := range streams[1:] {
		s = append(s, num(4, id)...)
	}
	return str(8, s)
}

// A word is a packet or frame that was heard.
type word struct {
	magic   string
	fields  map[protowire.Number][]any // numbers and bytes
	payload []byte
	inner   *word // the answer that a data frame carries
}

func (w *word) num(n protowire.Number) int64 {
	for _, v := range w.fields[n] {
		if x, ok := v.(uint64); ok {
			return int64(x)
		}
	}
	return 0
}

func (w *word) sub(n protowire.Number) *word {
	for _, v := range w.fields[n] {
		if b, ok := v.([]byte); ok {
			return &word{fields: parseFields(b)}
		}
	}
	return nil
}

func (w *word) str(n protowire.Number) string {
	for _, v := range w.fields[n] {
		if b, ok := v.([]byte); ok {
			return string(b)
		}
	}
	return ""
}

// errno and text are an answer's.
func (w *word) errno() int64 {
	if r := w.sub(2); r != nil {
		return r.num(1)
	}
	return 0
}

func (w *word) text() string {
	if r := w.sub(2); r != nil {
		return r.str(2)
	}
	return ""
}

// streams are the ids of an answer's or request's settings.
func (w *word) streams() (ids []int64) {
	s := w.sub(8)
	if s == nil {
		return nil
	}
	ids = append(ids, s.num(1))
	for _, v := range s.fields[4] {
		ids = append(ids, int64(v.(uint64)))
	}
	return ids
}

func (w *word) String() string {
	if w.magic == "STRM" {
		s := fmt.Sprintf("{STRM to %d from %d type %d, %d bytes", w.num(1), w.num(2), w.num(3), len(w.payload))
		if w.inner != nil {
			s += " " + w.inner.String()
		}
		return s + "}"
	}
	return fmt.Sprintf("{PRPC call %d error %d %q streams %v %.40q}", w.num(4), w.errno(), w.text(), w.streams(), w.payload)
}

func parseFields(p []byte) map[protowire.Number][]any {
	f := map[protowire.Number][]any{}
	for len(p) > 0 {
		n, typ, k := protowire.ConsumeTag(p)
		if k < 0 {
			return f
		}
		p = p[k:]
		switch typ {
		case protowire.VarintType:
			v, k := protowire.ConsumeVarint(p)
			f[n], p = append(f[n], v), p[k:]
		case protowire.BytesType:
			v, k := protowire.ConsumeBytes(p)
			f[n], p = append(f[n], v), p[k:]
		default:
			return f
		}
	}
	return f
}

// parseWord cuts the first packet or frame off p; nil if it is not complete.
func parseWord(p []byte) (*word, []byte) {
	if len(p) < 12 {
		return nil, p
	}
	body, meta := int(binary.BigEndian.Uint32(p[4:])), int(binary.BigEndian.Uint32(p[8:]))
	if len(p) < 12+body {
		return nil, p
	}
	w := &word{magic: string(p[:4]), fields: parseFields(p[12 : 12+meta]), payload: p[12+meta : 12+body]}
	if w.magic == "STRM" && len(w.payload) >= 12 && string(w.payload[:4]) == "PRPC" {
		w.inner, _ = parseWord(w.payload)
	}
	return w, p[12+body:]
}

// A brpcPeer speaks brpc by hand, as a client or as a server.
type brpcPeer struct {
	t    *testing.T
	nc   net.Conn
	next int64 // stream and correlation id of the next request

	mu    sync.Mutex
	words []*word
	err   error // how the connection ended; nil while it has not
	raw   int   // bytes heard
}

func newBrpcPeer(t *testing.T, nc net.Conn) *brpcPeer {
	p := &brpcPeer{t: t, nc: nc, next: 100}
	t.Cleanup(func() { _ = nc.Close() })
	return p
}

// listen takes in what is heard until the connection ends.
func (p *brpcPeer) listen() {
	var have []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := p.nc.Read(buf)
		have = append(have, buf[:n]...)
		p.mu.Lock()
		p.raw += n
		for {
			var w *word
			if w, have = parseWord(have); w == nil {
				break
			}
			p.words = append(p.words, w)
		}
		have = slices.Clone(have)
		if err != nil {
			p.err = err
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

func (p *brpcPeer) over() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// all returns the words that f wants.
func (p *brpcPeer) all(f func(w *word) bool) (ws []*word) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.words {
		if f(w) {
			ws = append(ws, w)
		}
	}
	return ws
}

// frames returns the frames of a type for stream to; data without answers.
func (p *brpcPeer) frames(typ, to int64) []*word {
	return p.all(func(w *word) bool {
		return w.magic == "STRM" && w.inner == nil && w.num(1) == to && w.num(3) == typ
	})
}

// reports are the reports on stream to, without the first, of nothing, which says that it is
// connected.
func (p *brpcPeer) reports(to int64) []*word {
	return slices.DeleteFunc(p.frames(brpcFeedback, to), func(w *word) bool { return w.sub(5).num(1) == 0 })
}

// answer returns the answer to the request with correlation id, nil if it has not
// come, and whether it came wrapped in a frame.
func (p *brpcPeer) answer(id int64) (a *word, wrapped bool) {
	for _, w := range p.all(func(w *word) bool { return w.inner != nil || w.magic == "PRPC" }) {
		wrapped = w.inner != nil
		if wrapped {
			w = w.inner
		}
		if w.num(4) == id {
			return w, wrapped
		}
	}
	return nil, false
}

// texts are the messages of the data frames for stream to.
func (p *brpcPeer) texts(to int64) string {
	s := []string{}
	for _, w := range p.frames(brpcData, to) {
		s = append(s, string(w.payload))
	}
	return fmt.Sprintf("%q", s)
}

// tail is what was heard last, for messages.
func (p *brpcPeer) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint("over: ", p.err, "; ", p.words[max(len(p.words)-8, 0):])
}

// say writes bytes as they are.
func (p *brpcPeer) say(parts ...[]byte) error {
	_, err := p.nc.Write(join(parts...))
	return err
}

// send is say for those who must be heard, and waits until everybody has done
// with it. It is for bubbles.
func (p *brpcPeer) send(parts ...[]byte) {
	p.t.Helper()
	if err := p.say(parts...); err != nil {
		p.t.Fatalf("write: %v: %s", err, p.tail())
	}
	synctest.Wait()
}

// settle is for how long little is written to a stream behind its answer.
const settle = 5 * time.Millisecond

// open opens a stream, in a bubble, and returns its id and the server's, once it has settled.
func (p *brpcPeer) open(method string) (own, theirs int64) {
	p.t.Helper()
	own = p.next
	p.next++
	p.send(brpcAsk{method: method, id: own, streams: []int64{own}}.bytes())
	a, wrapped := p.answer(own)
	if a == nil || !wrapped || a.errno() != 0 || len(a.streams()) != 1 {
		p.t.Fatalf("stream %d was not accepted: %s", own, p.tail())
	}
	time.Sleep(settle)
	synctest.Wait()
	return own, a.streams()[0]
}

// bothWires are the protocols of a server that serves brpc beside sluice.
func bothWires() []frame.Protocol { return []frame.Protocol{native.Protocol{}, strm.Protocol{}} }

// brpcTarget is a target that speaks brpc too; with a bubble in memory.
func brpcTarget(t *testing.T, bubble bool, so kernel.ServerOptions) *target {
	t.Helper()
	so.Protocols = bothWires()
	return newTarget(t, bubble, so)
}

// brpcAttack connects by hand.
func (tg *target) brpcAttack() *brpcPeer {
	tg.T.Helper()
	p := newBrpcPeer(tg.T, tg.Connect())
	go p.listen()
	return p
}

// brpcServer makes a client whose server is made by hand: f is called with both
// when the client has connected.
func brpcServer(t *testing.T, co kernel.ClientOptions, f func(p *brpcPeer, c *kernel.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		made := make(chan net.Conn, 10)
		co.Protocols = []frame.Protocol{strm.Protocol{}}
		co.Dial = func(context.Context, string, string) (net.Conn, error) {
			a, b := conn.Pipe()
			made <- b
			return a, nil
		}
		client, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&co))
		if err != nil {
			t.Fatal(err)
		}
		p := newBrpcPeer(t, <-made)
		go p.listen()
		f(p, client)
		_ = client.Close()
		_ = p.nc.Close()
	})
}

// accept answers the i-th request that was heard, with streams of the server's, and waits
// until they have settled.
func (p *brpcPeer) accept(i int, payload string, streams ...int64) (client []int64) {
	p.t.Helper()
	client = p.answerRequest(i, payload, streams...)
	time.Sleep(settle)
	synctest.Wait()
	return client
}

// answerRequest answers the i-th request that was heard, with streams of the server's.
func (p *brpcPeer) answerRequest(i int, payload string, streams ...int64) (client []int64) {
	p.t.Helper()
	r := p.request(i)
	client = r.streams()
	meta := join(str(2, num(1, 0)), num(4, r.num(4)), brpcSettings(streams, true, true))
	p.send(strmData(client[0], streams[0], string(packed("PRPC", meta, []byte(payload)))))
	return client
}

// request is the i-th request that was heard.
func (p *brpcPeer) request(i int) *word {
	p.t.Helper()
	rs := p.all(func(w *word) bool { return w.magic == "PRPC" })
	if len(rs) <= i {
		p.t.Fatalf("no request %d: %s", i, p.tail())
	}
	return rs[i]
}

// overBrpc makes a world over brpc, on a real socket.
func overBrpc(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions) *world {
	t.Helper()
	return newWorld(t, brpcOver(loops), so, co)
}

// brpcInBubble is inBubble over brpc.
func brpcInBubble(t *testing.T, so *kernel.ServerOptions, co *kernel.ClientOptions, f func(t *testing.T, w *world)) {
	t.Helper()
	s, c := testkit.OrZero(so), testkit.OrZero(co)
	s.Protocols, c.Protocols = bothWires(), []frame.Protocol{strm.Protocol{}}
	inBubble(t, &s, &c, f)
}
