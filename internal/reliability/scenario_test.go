package reliability

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// A wire is a protocol under test. A further one is a line in wires.
type wire struct {
	name  string
	proto func() frame.Protocol // a value for one server, or for one client
}

var wires = []wire{
	{"native", func() frame.Protocol { return native.Protocol{} }},
	{"brpc", func() frame.Protocol { return strm.Protocol{} }},
	{"seastar", func() frame.Protocol { return &seastar.Protocol{} }},
	{"grpc", func() frame.Protocol { return triple.Protocol{} }},
}

// The methods that scenarios call.
const (
	talks = "talk" // a stream, or a call that names one
	calls = "call" // a message each way
)

// method is what a method is called over w.
func (w *wire) method(name string) string {
	if w.proto().Caps().Verbs {
		return kernel.Verb(map[string]uint64{talks: 1, calls: 2}[name])
	}
	return "reliability.Test/" + name
}

// The ways to send and to receive.
var (
	sendWays    = []string{"Send", "TrySend", "Writable", "Out", "SendCopy"}
	receiveWays = []string{"Receive", "In", "All", "Batches", "ReceiveBatch"}
)

// A half is what is planned for one direction of a stream.
type half struct {
	send, receive int // indices of sendWays and receiveWays
	messages      int
}

// A stream is what is planned for one.
type stream struct {
	up, down   half // from the client, from the server
	serverEnds bool // the server ends it in order when all has come, else the client does
	window     int  // of both sides; 0: the default
	begin      time.Duration
}

// A scenario is made of its seed. Both processes make the same one of it.
type scenario struct {
	seed     uint64
	wire     *wire
	tls      bool
	loops    bool // the connections can be on event loops
	connType kernel.ConnType
	fault    fault
	streams  []stream
	calls    int // one after another, beside the streams
	longest  int // message, bytes
	packed   pool.Compression
	every    bool // the server speaks all wires
	tiny     bool // the sockets have buffers of a few KiB
}

func (sc *scenario) String() string {
	return fmt.Sprintf("%s, loops %t, tiny buffers %t, %v, streams %+v, %d calls, messages of %d bytes at most, %v",
		sc.row(), sc.loops, sc.tiny, sc.connType, sc.streams, sc.calls, sc.longest, sc.fault)
}

// row is the line of the report that the scenario belongs to.
func (sc *scenario) row() string {
	name := sc.wire.name
	if sc.tls {
		name += "/tls"
	}
	return name
}

// small tells that a seed stands for the one session that sweeps break.
const small = 1 << 63

// newScenario makes the scenario of a seed. 2,000 seeds in a row have every wire, with TLS and
// without, with every fault, and each of these with every way to send and to receive.
func newScenario(seed uint64) *scenario {
	if seed&small != 0 {
		return sweptScenario(seed)
	}
	n := int(seed % 2000)
	next := func(of int) int {
		defer func() { n /= of }()
		return n % of
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	sc := &scenario{seed: seed, wire: &wires[next(len(wires))], tls: next(2) == 1, loops: rnd.IntN(4) > 0}
	k := kind(next(int(kinds)))
	if k == flip && sc.wire.name != "native" {
		sc.tls = true // the wire itself has no checksums
	}
	first := half{send: next(len(sendWays)), receive: next(len(receiveWays))}
	sc.connType = one(rnd, kernel.ConnSingle, kernel.ConnSingle, kernel.ConnPooled, kernel.ConnShort)
	sc.longest = one(rnd, 200, 5_000, 5_000, 70_000, 300_000)
	most := min(60, max(4, 400_000/sc.longest))
	caps := sc.wire.proto().Caps()
	for i := range 1 + rnd.IntN(3) {
		s := stream{
			up:         half{rnd.IntN(len(sendWays)), rnd.IntN(len(receiveWays)), rnd.IntN(most + 1)},
			down:       half{rnd.IntN(len(sendWays)), rnd.IntN(len(receiveWays)), rnd.IntN(most + 1)},
			serverEnds: rnd.IntN(3) == 0,
			window:     one(rnd, 0, 0, 0, 64+sc.longest/4, 5000),
			begin:      time.Duration(rnd.IntN(5000)) * time.Microsecond * time.Duration(min(i, 1)),
		}
		if i == 0 { // this one has what the seed counts through, one way or the other
			h := one(rnd, &s.up, &s.down)
			*h = half{first.send, first.receive, 1 + rnd.IntN(most)}
		}
		sc.streams = append(sc.streams, s)
	}
	if c := one(rnd, pool.Gzip, pool.Zstd, pool.NoCompression, pool.NoCompression); caps.Compression.Has(c) {
		sc.packed = c
	}
	sc.calls, sc.tiny = rnd.IntN(8), rnd.IntN(8) == 0
	sc.fault = sc.drawFault(rnd, k)
	return sc
}

// sweptScenario is one stream of two small messages each way and a call: what a sweep breaks at
// every byte.
func sweptScenario(seed uint64) *scenario {
	n := int(seed &^ small)
	sc := &scenario{seed: seed, wire: &wires[n%len(wires)], tls: n/len(wires)%2 == 1, loops: true, longest: 40, calls: 1}
	sc.streams = []stream{{up: half{messages: 2}, down: half{messages: 2}}}
	return sc
}

// loadScenario is what runs on and on, while a process is killed or stopped, or a server drained:
// a key that no stream of the plan has stands for a stream of a few messages each way.
func loadScenario() *scenario {
	return &scenario{seed: 1, wire: &wires[0], every: true, loops: true, longest: 3000}
}

// one returns one of vs.
func one[T any](rnd *rand.Rand, vs ...T) T { return vs[rnd.IntN(len(vs))] }

// drawFault draws where a fault strikes: half of them where connections and streams begin, the
// others anywhere in what is to be sent that way, and a little behind it.
func (sc *scenario) drawFault(rnd *rand.Rand, k kind) fault {
	f := fault{kind: k, up: rnd.IntN(2) == 0, bit: rnd.IntN(8), both: rnd.IntN(2) == 0, piece: 1 + rnd.IntN(7)}
	f.pause = time.Duration(1+rnd.IntN(10)) * time.Millisecond
	if k == freeze {
		f.pause *= 20
	}
	planned := 1500 // framing, and a TLS handshake
	for i, s := range sc.streams {
		h, down := s.up, 1
		if !f.up {
			h, down = s.down, 2
		}
		for m := range h.messages {
			size, _ := sc.form(key(sc.seed, i), down, m)
			planned += size + 20
		}
	}
	switch rnd.IntN(4) {
	case 0:
		f.at = rnd.Int64N(500)
	case 1:
		f.at = rnd.Int64N(4000)
	default:
		f.at = rnd.Int64N(int64(planned))
	}
	return f
}

// key names a stream or call of a scenario: which one of them it is.
func key(seed uint64, number int) uint64 { return seed<<8 | uint64(number) }

// The numbers of what is not one of a scenario's streams.
const (
	firstCall = 100 // and the following
	again     = 99  // the stream that is opened when the path is whole again
)

// streamOf is the plan of the stream with a key.
func (sc *scenario) streamOf(k uint64) *stream {
	if n := int(k & 0xff); n < len(sc.streams) {
		return &sc.streams[n]
	}
	s := &stream{up: half{messages: 3}, down: half{messages: 3}}
	if len(sc.streams) == 0 { // a load's
		rnd := rand.New(rand.NewPCG(k, 2))
		s.up = half{rnd.IntN(len(sendWays)), rnd.IntN(len(receiveWays)), rnd.IntN(20)}
		s.down = half{rnd.IntN(len(sendWays)), rnd.IntN(len(receiveWays)), rnd.IntN(20)}
		s.serverEnds = rnd.IntN(3) == 0
	}
	return s
}

// form is the length of message i of a half, whose sender is 1 or 2, and what it is filled from.
func (sc *scenario) form(key uint64, sender, i int) (n int, fill byte) {
	rnd := rand.New(rand.NewPCG(key, uint64(sender)<<32|uint64(i)))
	switch rnd.IntN(10) {
	case 0:
	case 1, 2, 3:
		n = rnd.IntN(100)
	case 4:
		n = sc.longest
	default:
		n = rnd.IntN(sc.longest + 1)
	}
	return min(n, sc.longest), byte(rnd.Uint32())
}

// message makes message i of a half. No two bytes in a row are the same, and no two pieces of
// the sizes that wires cut messages to.
func (sc *scenario) message(key uint64, sender, i int) pool.Message {
	n, fill := sc.form(key, sender, i)
	m := pool.New(n)
	for j, b := 0, m.Bytes(); j < n; j++ {
		b[j] = fill + byte(j) + byte(j>>8)*7 + byte(j>>16)*31
	}
	return m
}

// isMessage tells whether p is message i of a half.
func (sc *scenario) isMessage(key uint64, sender, i int, p []byte) bool {
	n, fill := sc.form(key, sender, i)
	if len(p) != n {
		return false
	}
	for j, c := range p {
		if c != fill+byte(j)+byte(j>>8)*7+byte(j>>16)*31 {
			return false
		}
	}
	return true
}
