package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
)

// An h2Row is a row of the hostile catalogue over HTTP/2: what it ends, how much memory and CPU
// it may cost. Another connection goes on beside each.
type h2Row struct {
	name   string
	do     func(r *h2Raw)
	ends   ends
	code   uint32 // of the connection's end, or of the stream's. 0, of a connection: a word may find no room
	status int    // of the stream's end, where that is no reset
	on     uint32 // the stream that ends; 0: 1
	after  time.Duration
	quiet  bool // the attacker never reads

	alloc uint64        // bytes, in all; 0: 512 KiB
	cpu   time.Duration // of both sides; 0: 100 ms
	check func(r *h2Raw)
}

// h2Held is how much of the server's memory an attacker's connection may take when all is over,
// beside its own size, bytes.
const h2Held = 64 << 10

func TestHostileHTTP2(t *testing.T) {
	rows := slices.Concat(h2HeaderRows(), h2StreamRows(), h2FloodRows())
	for i := range rows {
		row := &rows[i]
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, row.run)
		})
	}
}

func (row *h2Row) run(t *testing.T) {
	opts := kernel.ServerOptions{Limits: targetLimits(), Protocols: []frame.Protocol{triple.Protocol{}, native.Protocol{}}}
	tg := newTarget(t, true, opts)
	tg.ConnectHonest()
	r := tg.speakHTTP2()
	if !row.quiet {
		go r.listen()
	}
	synctest.Wait()
	begun := cpuTime()
	got := allocated(func() {
		row.do(r)
		time.Sleep(row.after)
		synctest.Wait()
	})
	used := cpuTime() - begun
	t.Logf("%d KiB, %v", got>>10, used)
	if most := max(row.alloc, 512<<10); got > most {
		t.Errorf("%d bytes were allocated, %d are allowed", got, most)
	}
	if most := max(row.cpu, 100*time.Millisecond); used > most && !testkit.RaceEnabled {
		t.Errorf("it took %v of CPU, %v are allowed", used, most)
	}
	for _, c := range tg.Srv.Conns() {
		if s := c.Snapshot(); s.Memory-s.Own > h2Held && row.ends != connection {
			t.Errorf("%d bytes are held", s.Memory-s.Own)
		}
	}
	row.outcome(r)
	tg.Unharmed()
}

// cpuTime is what CPU the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// outcome checks what ended.
func (row *h2Row) outcome(r *h2Raw) {
	r.t.Helper()
	id := max(row.on, 1)
	if row.quiet {
		go r.listen() // late: what was said comes before the end
		synctest.Wait()
	}
	switch row.ends {
	case connection:
		if row.code > 0 && !r.ended(row.code) || r.over() == nil {
			r.t.Errorf("the connection did not end with %d: %s", row.code, r.tail())
		}
	case stream:
		if row.code > 0 && !r.wasReset(id, row.code) || row.code == 0 && !r.wasAnswered(id, row.status) {
			r.t.Errorf("stream %d did not end with %d, %d: %s", id, row.code, row.status, r.tail())
		}
	case nothing:
		if f, ok := r.find(id, func(f *h2Frame) bool { return f.typ == h2Reset }); ok {
			r.t.Errorf("stream %d ended: %v", id, f)
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
}

// h2HeaderRows are about header blocks.
func h2HeaderRows() []h2Row {
	long := strings.Repeat("v", 4000)
	return []h2Row{
		{name: "55 CONTINUATIONs without an end", do: h2Says(func(r *h2Raw) []byte {
			return join(h2(h2Headers, 0, 1, nil), bytes.Repeat(h2(h2Continuation, 0, 1, nil), 200))
		}), ends: connection, code: h2Calm},
		{name: "55 CONTINUATIONs of 16 KiB without an end", do: func(r *h2Raw) {
			part := h2(h2Continuation, 0, 1, bytes.Repeat([]byte{0x82}, 16<<10)) // :method GET
			_ = r.write(h2(h2Headers, 0, 1, nil))
			for range 17 {
				if r.write(part) != nil {
					return
				}
			}
		}, ends: connection, code: h2Calm, alloc: 2 << 20},
		{name: "55 a header block that never ends", do: h2Says(func(r *h2Raw) []byte { return h2(h2Headers, 0, 1, nil) }),
			after: time.Minute, ends: connection, code: h2Cancel},
		{name: "44 metadata of 17 KiB", do: h2Opens("echo", "a", long, "b", long, "c", long, "d", long, "e", long), ends: stream, status: 8},
		{name: "44 metadata of 15 KiB", do: h2Opens("echo", "a", long, "b", long, "c", long), ends: nothing},
		{name: "44 130 fields", do: h2Opens("echo", strings.Split(strings.Repeat("k v ", 130), " ")[:260]...), ends: stream, status: 8},
		{name: "44 a value of 65 KiB", do: h2Says(func(r *h2Raw) []byte {
			return h2InParts(1, r.requestBlock("echo", "a", strings.Repeat("~", 65<<10)))
		}), ends: connection, code: h2CompressionError, alloc: 2 << 20},
		{name: "44 a field's name in capitals", do: h2Opens("echo", "K", "v"), ends: stream, code: h2ProtocolError},
		{name: "56 a bomb: 200 KiB that say 800 MB", do: func(r *h2Raw) {
			// One field of 4,000 bytes goes into the table, and is there 200,000 times.
			block := append(r.requestBlock("echo", "k", long), bytes.Repeat([]byte{0x80 | 62}, 200_000)...)
			r.next += 2
			_ = r.write(h2InParts(1, block))
		}, ends: stream, status: 8, alloc: 4 << 20},
		{name: "56 a table beyond what was said", do: h2Says(func(*h2Raw) []byte {
			return h2(h2Headers, h2EndHeaders, 1, []byte{0x3f, 0xe2, 0x1f}) // 4,097
		}), ends: connection, code: h2CompressionError},
		{name: "56 an integer without an end", do: h2Says(func(*h2Raw) []byte {
			return h2(h2Headers, h2EndHeaders, 1, bytes.Repeat([]byte{0xff}, 100))
		}), ends: connection, code: h2CompressionError},
		{name: "56 a field that is not in the table", do: h2Says(func(*h2Raw) []byte {
			return h2(h2Headers, h2EndHeaders, 1, []byte{0x80 | 100})
		}), ends: connection, code: h2CompressionError},
	}
}

func h2Says(f func(r *h2Raw) []byte) func(r *h2Raw) {
	return func(r *h2Raw) { _ = r.write(f(r)) }
}

func h2Opens(method string, more ...string) func(r *h2Raw) {
	return func(r *h2Raw) { r.open(method, more...) }
}

// h2InParts is a HEADERS with CONTINUATIONs.
func h2InParts(id uint32, block []byte) (b []byte) {
	typ, flags := byte(h2Headers), byte(0)
	for part := range slices.Chunk(block, 16<<10) {
		b = append(b, h2(typ, flags, id, part)...)
		typ = h2Continuation
	}
	return append(b, h2(h2Continuation, h2EndHeaders, id, nil)...)
}

// h2StreamRows are about streams and their windows.
func h2StreamRows() []h2Row {
	stuck := func(frames ...[]byte) func(r *h2Raw) {
		return func(r *h2Raw) {
			r.open("stuck")
			synctest.Wait()
			_ = r.write(frames...)
		}
	}
	return []h2Row{
		{name: "39 an update of 0 on a stream", do: stuck(h2Grant(1, 0)), ends: stream, code: h2ProtocolError},
		{name: "39 an update of 0 on the connection", do: stuck(h2Grant(0, 0)), ends: connection, code: h2ProtocolError},
		{name: "40 a window beyond 2^31-1 on a stream", do: stuck(h2Grant(1, 1<<31-1)), ends: stream, code: h2FlowControlError},
		{name: "40 a window beyond 2^31-1 on the connection", do: stuck(h2Grant(0, 1<<31-1)), ends: connection, code: h2FlowControlError},
		{name: "40 an initial window beyond 2^31-1", do: stuck(h2Setting(4, 1<<31)), ends: connection, code: h2FlowControlError},
		{name: "40 an initial window that makes a stream's too large", do: stuck(h2Grant(1, 1<<30), h2Setting(4, 1<<31-1)), ends: connection, code: h2FlowControlError},
		{name: "41 a window of data on a stream", do: stuck(h2Message(1, 0, strings.Repeat("x", 5242-5))), ends: nothing},
		{name: "41 a byte more", do: stuck(h2(h2Data, 0, 1, make([]byte, 65_536))), ends: connection, code: h2FlowControlError, alloc: 2 << 20},
		{name: "42 streams beyond the limit", do: h2ManyOpens(201), on: 401, ends: stream, code: h2Refused, alloc: 4 << 20},
		{name: "42 over and over", do: h2ManyOpens(1200), on: 401, ends: stream, code: h2Refused, alloc: 16 << 20, cpu: 500 * time.Millisecond},
		{name: "46 rapid reset", do: func(r *h2Raw) { h2EachStream(r, 5000, "stuck", func(id uint32) []byte { return h2Rst(id, h2Cancel) }) },
			ends: nothing, on: 3, alloc: 64 << 20, cpu: 2 * time.Second},
		{name: "46 rapid reset, never reading", quiet: true, do: func(r *h2Raw) { h2EachStream(r, 5000, "stuck", func(id uint32) []byte { return h2Rst(id, h2Cancel) }) },
			ends: nothing, on: 3, alloc: 64 << 20, cpu: 2 * time.Second},
		{name: "47 resets that the server is made to send", do: func(r *h2Raw) { h2EachStream(r, 5000, "stuck", func(id uint32) []byte { return h2Grant(id, 0) }) },
			ends: stream, code: h2ProtocolError, alloc: 96 << 20, cpu: 2 * time.Second},
		{name: "47 the same, never reading", quiet: true, do: func(r *h2Raw) { h2EachStream(r, 100_000, "stuck", func(id uint32) []byte { return h2Grant(id, 0) }) },
			after: time.Minute, ends: connection, alloc: 256 << 20, cpu: 10 * time.Second},
		{name: "47 requests that are no calls", do: func(r *h2Raw) {
			for range 5000 {
				id := r.next
				r.next += 2
				if r.write(h2(h2Headers, h2EndHeaders, id, r.fields(":method", "GET", ":scheme", "http", ":path", "/"))) != nil {
					return
				}
			}
		}, after: time.Second, on: 9999, ends: stream, code: h2Refused, alloc: 64 << 20, cpu: 2 * time.Second},
		{name: "48 streams that say nothing", do: h2ManyOpens(99), after: time.Second, ends: nothing, alloc: 4 << 20},
		{name: "58 much is asked for and nothing read", quiet: true, do: func(r *h2Raw) {
			id, open := r.request("source")
			_ = r.write(open, h2Grant(0, 1<<30), h2Grant(id, 1<<30))
		}, after: 50 * time.Second, ends: connection, alloc: 16 << 20},
	}
}

// h2EachStream opens n streams and does something to each at once.
func h2EachStream(r *h2Raw, n int, method string, f func(id uint32) []byte) {
	for range n {
		id, open := r.request(method)
		if r.write(open, f(id)) != nil {
			return
		}
	}
}

// h2ManyOpens opens streams and, where those are all that there can be, ends them but one. A server
// has as many as it says, and as many again that are over for a peer that has read the end of
// the answer.
func h2ManyOpens(n int) func(r *h2Raw) {
	return func(r *h2Raw) {
		for range n {
			r.open("stuck")
		}
		synctest.Wait()
		for id := uint32(3); n > 200 && id < 400; id += 2 {
			_ = r.write(h2Rst(id, h2Cancel))
		}
		synctest.Wait()
	}
}

// h2FloodRows are frames that cost the server, and the attacker less.
func h2FloodRows() []h2Row {
	flood := func(n int, f []byte) func(r *h2Raw) {
		return func(r *h2Raw) {
			r.open("stuck")
			synctest.Wait()
			for ; n > 0; n -= 1000 {
				if r.write(bytes.Repeat(f, min(n, 1000))) != nil {
					return
				}
			}
		}
	}
	ping := h2(h2Ping, 0, 0, make([]byte, 8))
	padded := func(n int) []byte { return h2(h2Data, h2Padded, 1, append([]byte{255}, make([]byte, n+255)...)) }
	return []h2Row{
		{name: "50 1,000 pings", do: flood(1000, ping), ends: nothing},
		{name: "50 a ping more", do: flood(1001, ping), ends: connection, code: h2Calm},
		{name: "51 pings that are never read", quiet: true, do: flood(1001, ping), ends: connection, code: h2Calm},
		{name: "51 answers that nobody asked for", do: flood(1100, h2(h2Ping, h2Ack, 0, make([]byte, 8))), ends: connection, code: h2Calm},
		{name: "52 99 SETTINGS", do: flood(99, h2Setting(4, 1<<20)), ends: nothing},
		{name: "52 SETTINGS", do: flood(1000, h2Setting(4, 1<<20)), ends: connection, code: h2Calm},
		{name: "52 SETTINGS that are never read", quiet: true, do: flood(1000, h2Setting(4, 1<<20)), ends: connection, code: h2Calm},
		{name: "52 SETTINGS with 680 values", do: flood(50, h2(h2Settings, 0, 0, bytes.Repeat([]byte{0, 4, 0, 0x10, 0, 0}, 680))), ends: nothing, alloc: 2 << 20},
		{name: "52 SETTINGS with 2,700 values", do: flood(50, h2(h2Settings, 0, 0, bytes.Repeat([]byte{0, 4, 0, 0x10, 0, 0}, 2700))), ends: connection, code: h2FrameSizeError, alloc: 4 << 20},
		{name: "52 acknowledgements of SETTINGS", do: flood(2000, h2(h2Settings, h2Ack, 0, nil)), ends: connection, code: h2Calm},
		{name: "54 updates of 1 on a stream", do: flood(1100, h2Grant(1, 1)), ends: connection, code: h2Calm},
		{name: "54 updates of 1 on the connection", do: flood(1100, h2Grant(0, 1)), ends: connection, code: h2Calm},
		{name: "54 resets of a stream that has ended", do: flood(1100, h2Rst(1, h2Cancel)), ends: connection, code: h2Calm},
		{name: "54 GOAWAYs", do: flood(17, h2(h2GoAway, 0, 0, make([]byte, 8))), ends: connection, code: h2Calm},
		{name: "29 1,000 DATA without data", do: flood(1000, h2(h2Data, 0, 1, nil)), ends: nothing},
		{name: "29 one more", do: flood(1001, h2(h2Data, 0, 1, nil)), ends: connection, code: h2Calm},
		{name: "29 DATA of padding alone", do: flood(1001, padded(0)), ends: connection, code: h2Calm, alloc: 4 << 20},
		{name: "29 the same, on a stream that is read", do: func(r *h2Raw) {
			r.open("sink")
			synctest.Wait()
			for range 1001 {
				if r.write(padded(0)) != nil {
					return
				}
				synctest.Wait()
			}
		}, ends: connection, code: h2Calm, alloc: 4 << 20},
		{name: "28 a message byte by byte, in padding", do: func(r *h2Raw) {
			r.open("sink")
			message := append(binary.BigEndian.AppendUint32([]byte{0}, 20_000), make([]byte, 20_000)...)
			for _, b := range message {
				if r.write(h2(h2Data, h2Padded, 1, append([]byte{255, b}, make([]byte, 255)...))) != nil {
					return
				}
				synctest.Wait()
			}
		}, ends: nothing, alloc: 32 << 20, cpu: 2 * time.Second},
		{name: "11 1,000 PRIORITYs", do: flood(1000, h2(h2Priority, 0, 1, make([]byte, 5))), ends: nothing},
		{name: "11 PRIORITYs", do: flood(1100, h2(h2Priority, 0, 1, make([]byte, 5))), ends: connection, code: h2Calm},
		{name: "11 1,000 frames of unknown types", do: flood(1000, h2(99, 0, 1, nil)), ends: nothing},
		{name: "11 too many of them", do: flood(1100, h2(99, 0, 1, nil)), ends: connection, code: h2Calm},
	}
}

// However many streams are opened and reset, no more handlers run than streams may be open.
func TestHTTP2ResetsDoNotMultiplyHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{Limits: targetLimits(), Protocols: []frame.Protocol{triple.Protocol{}, native.Protocol{}}})
		running := make(chan struct{}, 10_000)
		done := make(chan struct{})
		tg.Srv.Handle("deaf", func(context.Context, *kernel.Stream) error {
			running <- struct{}{}
			<-done
			return nil
		})
		tg.ConnectHonest()
		r := tg.speakHTTP2()
		go r.listen()
		for range 500 {
			id := r.open("deaf")
			_ = r.write(h2Rst(id, h2Cancel))
			synctest.Wait()
		}
		if n := len(running); n != 100 {
			t.Errorf("%d handlers run, 100 may", n)
		}
		tg.Unharmed()
		close(done)
		synctest.Wait()
		r.echoes()
	})
}
