package kernel_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/status"
)

// The hostile catalogue: what a peer may do that an honest one does not, one row
// each. Every row says what it must end, with which code, and how much memory it
// may cost; the runner checks besides that all credit of the connection comes
// back and that an honest client's stream goes on. Numbers without a row:
//
//	17          settings do not change after the hello
//	52, 55      there is neither a settings frame nor a header continuation
//	56, 57      there is no compression
//	66          keys are in Go maps, numbers in dense tables
//	69-73, 76   networks that lose, delay and part, small buffers: the relay of the load tests
//	77-80       signals to processes
//	81, 82      descriptors; TestOutOfDescriptors
//	83-90       the host's own faults
//	95, 96      0-RTT is never on; tokens that expire are the program's
//	100         there is no admin port
//	103, 104    other wires
//
// 4 to 7 and 67 are also in the sweep of cuts, 61 and 64 in tests of their own over
// TCP, 63 in the limit on handshakes, 85 in the tests of the memory budget.

// ends is what a row may end.
type ends int

const (
	nothing    ends = iota
	stream          // the row's stream is reset or refused, with the code
	connection      // GOAWAY with the code, then the end
	dropped         // the connection is closed without a GOAWAY
	stalled         // the connection is closed; the GOAWAY came if there was room for it
)

// A hostileRow is one row of the catalogue.
type hostileRow struct {
	name  string
	do    func(r *raw)
	ends  ends
	code  status.Code
	on    uint64        // the stream that ends; 0: 1
	after time.Duration // how long it may take, in the bubble's time
	alloc uint64        // bytes; 0: 512 KiB
	own   func(*frame.Settings)
	limit func(*kernel.Limits)
	quiet bool // the attacker never reads
	check func(r *raw)

	logged string // by the server
}

func runHostile(t *testing.T, rows []hostileRow) {
	for i := range rows {
		row := &rows[i]
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				row.run(newTarget(t, true, kernel.ServerOptions{Limits: row.limits()}))
			})
		})
	}
}

func (row *hostileRow) limits() kernel.Limits {
	l := targetLimits()
	if row.limit != nil {
		row.limit(&l)
	}
	return l
}

func (row *hostileRow) run(tg *target) {
	tg.T.Helper()
	tg.ConnectHonest()
	own := hello()
	if row.own != nil {
		row.own(&own)
	}
	var r *raw
	if row.quiet {
		r = tg.silent(own)
	} else {
		r = tg.attack(own)
	}
	tg.Settle(func() bool { return true })
	got := allocated(func() {
		row.do(r)
		if tg.Bubble {
			time.Sleep(row.after)
			synctest.Wait()
		}
	})
	if most := max(row.alloc, 512<<10); got > most {
		tg.T.Errorf("%d bytes were allocated, %d are allowed", got, most)
	}
	row.outcome(r)
	tg.Unharmed()
}

// outcome checks what ended.
func (row *hostileRow) outcome(r *raw) {
	r.t.Helper()
	id := max(row.on, 1)
	if row.quiet {
		go r.listen() // late: what was said comes before the end
	}
	switch row.ends {
	case connection:
		if !r.tg.Settle(func() bool { return r.ended(row.code) }) {
			r.t.Errorf("the connection did not end with %v: %s", row.code, r.tail())
		}
	case dropped:
		if !r.tg.Settle(func() bool { return r.over() != nil }) {
			r.t.Errorf("the connection goes on: %s", r.tail())
		}
		if h, ok := r.find(frame.GoAway, 0); ok {
			r.t.Errorf("the connection ended with a word: %v", h)
		}
	case stalled:
		if !r.tg.Settle(func() bool { return r.over() != nil }) {
			r.t.Errorf("the connection goes on: %s", r.tail())
		}
		if h, ok := r.find(frame.GoAway, 0); ok && h.code != row.code {
			r.t.Errorf("the connection ended with another word: %v", h)
		}
	case stream:
		if !r.tg.Settle(func() bool { return row.streamEnded(r, id) }) {
			r.t.Errorf("stream %d did not end with %v: %s", id, row.code, r.tail())
		}
	case nothing:
		for _, k := range []frame.Kind{frame.Reset, frame.Reject} {
			if h, ok := r.find(k, id); ok {
				r.t.Errorf("stream %d ended: %v", id, h)
			}
		}
	}
	if row.ends == stream || row.ends == nothing {
		if r.over() != nil {
			r.t.Fatalf("the connection ended: %s", r.tail())
		}
		r.echoes()
	}
	if row.check != nil {
		row.check(r)
	}
	if log := r.tg.Log.String(); !strings.Contains(log, row.logged) {
		r.t.Errorf("%q is not in the log: %s", row.logged, log)
	}
	if row.ends == stream || row.ends == nothing {
		r.settled()
	}
}

func (row *hostileRow) streamEnded(r *raw, id uint64) bool {
	for _, k := range []frame.Kind{frame.Reset, frame.Reject} {
		if h, ok := r.find(k, id); ok {
			return h.code == row.code
		}
	}
	return false
}

// bytesRow sends bytes as they are, on a connection with one echo stream open.
func says(parts ...[]byte) func(r *raw) {
	return func(r *raw) {
		r.open("echo")
		_ = r.write(join(parts...))
	}
}

func frames(fs ...frame.Frame) []byte {
	var b []byte
	for i := range fs {
		b = append(b, wire(&fs[i])...)
	}
	return b
}

// eos, reset, credit and so on are frames of stream 1 unless they say otherwise.
var (
	eos    = frame.Frame{Kind: frame.EOS, Stream: 1}
	reset  = frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled}
	goAway = frame.Frame{Kind: frame.GoAway, Value: 0}
)

func TestHostileFraming(t *testing.T) {
	big := make([]byte, 200)
	runHostile(t, []hostileRow{
		{name: "07 end between frames with a stream open", ends: dropped, do: func(r *raw) {
			r.open("echo")
			_ = r.nc.Close()
		}},
		{name: "08 length of 16 MiB", do: says(head(0xffffff, typeData, 1)), ends: connection, code: status.FrameSize},
		{name: "08 length one beyond the limit", do: says(head(native.DefaultMaxFragment+1, typeData, 1)), ends: connection, code: status.FrameSize},
		{name: "08 length of a control frame", do: says(head(64<<10+1, 1, 3)), ends: connection, code: status.FrameSize},
		{name: "09 a legal length and silence", do: says(head(native.DefaultMaxFragment, typeData, 1), []byte{1}),
			after: 31 * time.Second, ends: connection, code: status.DeadlineExceeded},
		{name: "10 credit without a total", do: says(head(0, 9, 1)), ends: connection, code: status.FrameSize},
		{name: "10 ping too long", do: says(head(9, 11, 0), big[:9]), ends: connection, code: status.FrameSize},
		{name: "10 open without a payload", do: says(head(0, 1, 3)), ends: connection, code: status.FrameSize},
		{name: "11 frames of unknown types", do: says(bytes.Repeat(head(0, 20, 0), 100)), ends: nothing},
		{name: "11 too many of them", do: says(bytes.Repeat(head(0, 20, 0), 101)), ends: connection, code: status.EnhanceYourCalm},
		{name: "11 a type that must be known", do: says(head(0, 15, 0)), ends: connection, code: status.Protocol},
		{name: "12 unknown flags", do: says(append(head(8, 9|0xe0, 1), 0, 0, 16, 0, 0, 0, 0, 0)), ends: nothing},
		{name: "14 a second hello", do: says(frames(frame.Frame{Kind: frame.Hello, Settings: hello()})), ends: connection, code: status.Protocol},
		{name: "18 hardly any credit to begin with", own: func(s *frame.Settings) { s.ConnCredit, s.InitialCredit = 1, 1 },
			do: noCreditThenSome, ends: nothing},
		{name: "18 a stream without credit", do: noCreditOnAStream, ends: nothing},
		{name: "22 numbers beyond the end", do: says(frames(frame.Frame{
			Kind: frame.Open, Stream: 1<<31 - 1, Method: "echo", Grants: make([]frame.Grant, 2)})), ends: connection, code: status.Protocol},
		{name: "22 a total of 4 GiB", do: says(first(1, 1<<32-1, big)), ends: stream, code: status.TooLarge},
		{name: "23 varint of eleven bytes", do: says(head(12, 6, 1), bytes.Repeat([]byte{0xff}, 11), []byte{1}), ends: connection, code: status.Protocol},
		{name: "23 varint that is not the shortest", do: says(head(2, 6, 1), []byte{0x80, 0}), ends: connection, code: status.Protocol},
		{name: "24 GOAWAY that takes the last one back", do: says(frames(goAway, frame.Frame{Kind: frame.GoAway, Value: 2})), ends: connection, code: status.Protocol},
		{name: "24 GOAWAY with a stream that never was", do: says(frames(frame.Frame{Kind: frame.GoAway, Value: 4711})), ends: connection, code: status.Protocol},
		{name: "24 GOAWAY with a number beyond all", do: says(frames(frame.Frame{Kind: frame.GoAway, Value: 1 << 40})), ends: connection, code: status.Protocol},
		{name: "25 two messages mixed", do: says(first(1, 100, big[:10]), first(1, 100, big[:10])), ends: connection, code: status.Protocol},
		{name: "25 a message inside another", do: says(first(1, 100, big[:10]), data(1, big[:3])), ends: connection, code: status.Protocol},
		{name: "25 a fragment of nothing", do: says(more(1, big[:10], false)), ends: connection, code: status.Protocol},
		{name: "25 the end inside a message", do: says(first(1, 100, big[:10]), frames(eos)), ends: connection, code: status.Protocol},
		{name: "26 fragments of two streams", do: twoStreamsInFragments, ends: nothing},
		{name: "27 a message beyond the limit", do: says(first(1, 1<<20+1, big), more(1, big, false), more(1, big, true)), ends: stream, code: status.TooLarge},
		{name: "27 a message longer than announced", do: says(first(1, 20, big[:10]), more(1, big[:11], true)), ends: connection, code: status.Protocol},
		{name: "27 a message shorter than announced", do: says(first(1, 20, big[:10]), more(1, big[:9], true)), ends: connection, code: status.Protocol},
		{name: "28 a message byte by byte", alloc: 4 << 20, do: says(first(1, 1<<20, big[:1]), bytes.Repeat(more(1, big[:1], false), 1001)), ends: connection, code: status.EnhanceYourCalm},
		{name: "29 empty fragments", alloc: 4 << 20, do: says(first(1, 1<<20, big[:1]), bytes.Repeat(more(1, nil, false), 11)), ends: connection, code: status.EnhanceYourCalm},
	})
}

func noCreditThenSome(r *raw) {
	says(data(1, []byte("waits")))(r)
	r.tg.Settle(func() bool { return true })
	if _, ok := r.find(frame.Data, 1); ok {
		r.t.Error("data came without credit")
	}
	r.say(frame.Frame{Kind: frame.Credit, Value: 1000})
	r.tg.Settle(func() bool { return true })
	if h, ok := r.find(frame.Data, 1); !ok || string(h.data) != "waits" {
		r.t.Errorf("credit came and no data: %s", r.tail())
	}
}

func noCreditOnAStream(r *raw) {
	id := r.next
	r.next += 2
	r.say(frame.Frame{Kind: frame.Open, Stream: id, Method: "echo", Grants: []frame.Grant{{}}})
	says(data(id, []byte("waits")))(r)
	r.tg.Settle(func() bool { return true })
	if _, ok := r.find(frame.Data, id); ok {
		r.t.Error("data came without credit")
	}
	r.say(frame.Frame{Kind: frame.Credit, Stream: id, Value: 1000})
	r.tg.Settle(func() bool { return true })
	if h, ok := r.find(frame.Data, id); !ok || string(h.data) != "waits" {
		r.t.Errorf("credit came and no data: %s", r.tail())
	}
}

func twoStreamsInFragments(r *raw) {
	a, b := r.open("echo"), r.open("echo")
	_ = r.write(join(first(a, 6, []byte("ab")), first(b, 4, []byte("uv")), more(a, []byte("cd"), false),
		more(b, []byte("wx"), true), more(a, []byte("ef"), true)))
	r.tg.Settle(func() bool { return true })
	x, _ := r.find(frame.Data, a)
	y, _ := r.find(frame.Data, b)
	if string(x.data) != "abcdef" || string(y.data) != "uvwx" {
		r.t.Errorf("not put together: %s", r.tail())
	}
}

// Rows 4 to 6: the connection ends at each byte of a header, of a payload,
// between two fragments: never does a part of a message come out, nor a clean
// end.
func TestHostileTruncation(t *testing.T) {
	script := join(data(1, []byte("one")), first(1, 10, []byte("half")), more(1, []byte("of it!"), true),
		frames(eos))
	for cut := range len(script) {
		synctest.Test(t, func(t *testing.T) {
			tg := newTarget(t, true, kernel.ServerOptions{})
			tg.ConnectHonest()
			want := ""
			if cut >= 11 {
				want += "one "
			}
			if cut >= 11+16+14 {
				want += "halfof it! "
			}
			tg.CutShort(cut, want, func() {
				r := tg.attack(hello())
				r.open("log")
				_ = r.write(script[:cut])
				_ = r.nc.Close()
			})
		})
	}
}
