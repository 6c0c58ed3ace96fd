package kernel_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

func credit(id, total uint64) frame.Frame {
	return frame.Frame{Kind: frame.Credit, Stream: id, Value: total}
}

// after runs steps with everything settled in between.
func after(steps ...func(r *raw)) func(r *raw) {
	return func(r *raw) {
		for _, s := range steps {
			s(r)
			r.tg.Settle(func() bool { return true })
		}
	}
}

func opens(method string) func(r *raw) { return func(r *raw) { r.open(method) } }

func sends(parts ...[]byte) func(r *raw) {
	return func(r *raw) { _ = r.write(join(parts...)) }
}

// grant is what a server of targetLimits lets an opener send at first.
const grant = (1 << 20) / 2 / 100

func TestHostileStreams(t *testing.T) {
	hundred := make([]byte, 100)
	open := func(id uint64) []byte { return frames(openFrame(id, "echo")) }
	runHostile(t, []hostileRow{
		{name: "30 data on stream 0", do: says(data(0, nil)), ends: connection, code: status.Protocol},
		{name: "30 end of stream 0", do: says(frames(frame.Frame{Kind: frame.EOS})), ends: connection, code: status.Protocol},
		{name: "30 answer for stream 0", do: says(frames(frame.Frame{Kind: frame.Accept, Grants: make([]frame.Grant, 1)})), ends: connection, code: status.Protocol},
		{name: "30 ping on a stream", do: says(frames(frame.Frame{Kind: frame.Ping, Stream: 1})), ends: connection, code: status.Protocol},
		{name: "30 open of stream 0", do: says(open(0)), ends: connection, code: status.Protocol},
		{name: "30 open with the server's parity", do: says(open(2)), ends: connection, code: status.Protocol},
		{name: "30 open of a lower number", do: says(open(9), open(7)), ends: connection, code: status.Protocol},
		{name: "30 answer to the server's answer", do: says(frames(frame.Frame{Kind: frame.Accept, Stream: 1, Grants: make([]frame.Grant, 1)})), ends: connection, code: status.Protocol},
		{name: "31 open of a number in use", do: says(open(1)), ends: connection, code: status.Protocol},
		{name: "31 open of a number used", do: after(says(frames(reset)), sends(open(1))), ends: connection, code: status.Protocol},
		{name: "32 data for a stream never opened", do: says(data(3, hundred)), ends: connection, code: status.StreamState},
		{name: "32 credit for a stream never opened", do: says(frames(credit(3, 100))), ends: connection, code: status.StreamState},
		{name: "32 data for a stream of the server's never opened", do: says(data(2, hundred)), ends: connection, code: status.StreamState},
		{name: "33 data on a stream that the server reset", do: after(opens("stuck"), sends(frames(eos), data(1, hundred), data(1, hundred))),
			ends: stream, code: status.StreamState},
		{name: "33 a window of data on a stream that was refused", do: refusedWithData(1<<20 - 10_000), ends: stream, code: status.Unimplemented, alloc: 8 << 20},
		{name: "33 more data than was ever granted on it", do: refusedWithData(1<<20 + 10_000), ends: connection, code: status.StreamState, alloc: 8 << 20},
		{name: "34 data after the end", do: after(opens("stuck"), sends(frames(eos), data(1, hundred))), ends: stream, code: status.StreamState},
		{name: "34 and again", do: after(opens("stuck"), sends(frames(eos), data(1, hundred)), sends(data(1, hundred))),
			ends: connection, code: status.StreamState},
		{name: "35 data after a reset", do: says(frames(reset), data(1, hundred)), ends: connection, code: status.StreamState},
		{name: "36 a second end", do: after(opens("stuck"), sends(frames(eos, eos))), ends: stream, code: status.StreamState},
		{name: "36 the end after a reset", do: says(frames(reset, eos)), ends: connection, code: status.StreamState},
		{name: "37 reset of a stream never opened", do: says(frames(frame.Frame{Kind: frame.Reset, Stream: 5})), ends: connection, code: status.Protocol},
		{name: "38 credit for a stream that has ended", do: after(says(frames(reset)), sends(frames(credit(1, 1<<20)))), ends: nothing},
		{name: "38 stop and ended for a stream that has ended", do: after(says(frames(reset)), sends(frames(
			frame.Frame{Kind: frame.Stop, Stream: 1}, frame.Frame{Kind: frame.Ended, Stream: 1}))), ends: nothing},
		{name: "39 a stale grant", do: says(frames(credit(1, 0), credit(0, 0))), ends: nothing},
		{name: "40 credit beyond all on a stream", do: says(frames(credit(1, 1<<31+1))), ends: connection, code: status.FlowControl},
		{name: "40 credit beyond all on the connection", do: says(frames(credit(0, 1<<32))), ends: connection, code: status.FlowControl},
		{name: "40 the highest number there is", do: says(frames(credit(1, 1<<64-1))), ends: connection, code: status.FlowControl},
		{name: "40 credit beyond all with an open", do: says(frames(frame.Frame{Kind: frame.Open, Stream: 3, Method: "echo",
			Grants: []frame.Grant{{Credit: 1<<31 + 1}}})), ends: connection, code: status.FlowControl},
		{name: "41 all credit of a stream", do: after(opens("stuck"), sends(data(1, make([]byte, grant-32)))), ends: nothing},
		{name: "41 a byte more", do: after(opens("stuck"), sends(data(1, make([]byte, grant-31)))), ends: connection, code: status.FlowControl},
		{name: "41 a byte more in a second message", do: after(opens("stuck"), sends(data(1, make([]byte, grant-64)), data(1, []byte{1}))),
			ends: connection, code: status.FlowControl},
		{name: "42 streams beyond the limit", do: manyOpens(101), on: 201, ends: stream, code: status.Refused, alloc: 2 << 20},
		{name: "42 over and over", do: manyOpens(100 + 10*100 + 1), on: 201, ends: stream, code: status.Refused, alloc: 8 << 20},
		{name: "43 no such method", do: opens("nothing"), ends: stream, code: status.Unimplemented, check: notProcessed},
		{name: "44 metadata of 17 KiB", do: opensWith(metadata.MD{{Key: "k", Value: strings.Repeat("v", 17<<10)}}), ends: stream, code: status.TooLarge},
		{name: "44 a key of 17 KiB", do: opensWith(metadata.MD{{Key: strings.Repeat("k", 17<<10)}}), ends: stream, code: status.TooLarge},
		{name: "44 metadata of 1 MiB", do: opensWith(metadata.MD{{Key: "k", Value: strings.Repeat("v", 1<<20)}}), ends: connection, code: status.FrameSize, alloc: 6 << 20},
		{name: "44 129 keys", do: opensWith(keys(129)), ends: stream, code: status.TooLarge},
		{name: "44 10,000 keys", do: opensWith(keys(10_000)), ends: stream, code: status.TooLarge, alloc: 4 << 20},
		{name: "44 128 keys, all the same", do: opensWith(bytes128()), ends: nothing},
		{name: "44 a key with NUL", do: opensWith(metadata.MD{{Key: "a\x00b"}}), ends: stream, code: status.Protocol},
		{name: "44 a key in capitals", do: opensWith(metadata.MD{{Key: "Key"}}), ends: stream, code: status.Protocol},
		{name: "44 an empty key", do: opensWith(metadata.MD{{Key: ""}}), ends: stream, code: status.Protocol},
		{name: "44 a value with NUL and line breaks", do: opensWith(metadata.MD{{Key: "k", Value: "\x00\r\n\xff"}}), ends: nothing},
		{name: "44 an end with 30,000 empty fields", do: after(opens("stuck"), sends(endWith(make(metadata.MD, 30_000)))), ends: stream, code: status.TooLarge},
		{name: "44 an end with 17 KiB of trailers", do: after(opens("stuck"), sends(endWith(md(17<<10)))), ends: stream, code: status.TooLarge},
		{name: "44 an end with 129 fields", do: after(opens("stuck"), sends(endWith(keys(129)))), ends: stream, code: status.TooLarge},
		{name: "44 an end with all that it may have", do: after(opens("stuck"), sends(endWith(bytes128())), opens("stuck"),
			sends(frames(frame.Frame{Kind: frame.EOS, Stream: 3, Metadata: md(16 << 10)}))), ends: nothing},
		{name: "44 a request as long as an open may carry", do: opensWithRequest(16 << 10), ends: nothing},
		{name: "44 a byte more", do: opensWithRequest(16<<10 + 1), ends: stream, code: status.TooLarge, check: notProcessed},
		{name: "44 a request of 60 KiB", do: opensWithRequest(60 << 10), ends: stream, code: status.TooLarge, check: notProcessed},
		{name: "44 a request to follow, beyond the limit", do: after(opensToFollow, sends(first(1, 1<<20+1, hundred), more(1, hundred, false))),
			ends: stream, code: status.TooLarge},
		{name: "44 a request to follow, of which some never comes", do: after(opensToFollow, sends(first(1, 1<<20, hundred))), ends: nothing, alloc: 4 << 20},
		{name: "44 a request to follow that never comes", do: after(opensToFollow, sends(frames(eos))), ends: nothing},
		{name: "46 open and reset without a pause", do: openAndReset, ends: nothing, alloc: 64 << 20},
		{name: "47 resets that the server is made to send", do: madeToReset, ends: stream, code: status.StreamState, alloc: 96 << 20},
		{name: "48 streams that say nothing", do: manyOpens(100), ends: nothing, after: time.Second, alloc: 2 << 20},
		{name: "49 data for a handler that has returned", do: after(opens("early"), sends(data(1, hundred), data(1, hundred))), ends: nothing},
	})
}

func notProcessed(r *raw) {
	if h, _ := r.find(frame.Reject, 1); !h.fresh {
		r.t.Errorf("the refusal does not say that nothing was processed: %+v", h)
	}
}

// refusedWithData sends n bytes of credit's worth behind an open that is
// refused.
func refusedWithData(n int) func(r *raw) {
	return func(r *raw) {
		r.open("nothing")
		r.tg.Settle(func() bool { return true })
		for n > 0 {
			k := min(n, 8000)
			_ = r.write(data(1, make([]byte, max(k-32, 0))))
			n -= k
			r.tg.Settle(func() bool { return true })
		}
	}
}

func manyOpens(n int) func(r *raw) {
	return func(r *raw) {
		for range n {
			r.open("stuck")
		}
		r.tg.Settle(func() bool { return true })
		if r.over() == nil && r.count(frame.Reject) == 0 {
			// As many as are allowed: one has to make room for the check.
			r.say(frame.Frame{Kind: frame.Reset, Stream: r.next - 2})
			r.tg.Settle(func() bool { return true })
		} else {
			r.say(frame.Frame{Kind: frame.Reset, Stream: 1})
		}
	}
}

func opensWith(md metadata.MD) func(r *raw) {
	return func(r *raw) {
		f := openFrame(r.next, "echo")
		r.next += 2
		f.Metadata = md
		r.say(f)
	}
}

// endWith is an end of stream 1 with trailers.
func endWith(md metadata.MD) []byte {
	return frames(frame.Frame{Kind: frame.EOS, Stream: 1, Metadata: md})
}

func opensWithRequest(n int) func(r *raw) {
	return func(r *raw) {
		f := openFrame(r.next, "echo")
		r.next += 2
		f.Payload = make([]byte, n)
		r.say(f)
	}
}

func opensToFollow(r *raw) {
	f := openFrame(r.next, "stuck")
	r.next += 2
	f.FollowsData = true
	r.say(f)
}

func keys(n int) (md metadata.MD) {
	for i := range n {
		md = append(md, metadata.Field{Key: fmt.Sprint(i)})
	}
	return md
}

func bytes128() (md metadata.MD) {
	for range 128 {
		md = append(md, metadata.Field{Key: "k", Value: "v"})
	}
	return md
}

// Row 45: the last number that a stream can have works; there is none after it.
func TestHostileLastNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		tg.ConnectHonest()
		r := tg.attack(hello())
		r.next = 1<<31 - 1
		r.echoes()
		r.say(openFrame(1, "echo"))
		synctest.Wait()
		if !r.ended(status.Protocol) {
			t.Errorf("numbers began anew: %s", r.tail())
		}
		tg.Unharmed()
	})
}

// openAndReset is CVE-2023-44487. How many opens are refused depends on how soon
// handlers return. Each costs less than a call, and no more handlers run than may.
func openAndReset(r *raw) {
	for range 5000 {
		id := r.next
		r.next += 2
		if r.write(frames(openFrame(id, "stuck"), frame.Frame{Kind: frame.Reset, Stream: id, Code: status.Cancelled})) != nil {
			return
		}
	}
}

// madeToReset is CVE-2025-8671.
func madeToReset(r *raw) {
	for range 5000 {
		id := r.next
		r.next += 2
		if r.write(join(frames(openFrame(id, "stuck"), frame.Frame{Kind: frame.EOS, Stream: id}), data(id, []byte("late")))) != nil {
			return
		}
		r.tg.Settle(func() bool { return true })
	}
}

// However many streams are opened and reset, no more handlers run than streams
// may be open: one that does not heed its context counts until it returns.
func TestHostileResetsDoNotMultiplyHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := newTarget(t, true, kernel.ServerOptions{})
		running := make(chan struct{}, 10_000)
		done := make(chan struct{})
		tg.Srv.Handle("deaf", func(_ context.Context, _ *kernel.Stream) error {
			running <- struct{}{}
			<-done
			return nil
		})
		tg.ConnectHonest()
		r := tg.attack(hello())
		for range 500 {
			id := r.next
			r.next += 2
			r.say(openFrame(id, "deaf"), frame.Frame{Kind: frame.Reset, Stream: id})
			synctest.Wait()
		}
		if n := len(running); n != 100 {
			t.Errorf("%d handlers run, 100 may", n)
		}
		if h, ok := r.find(frame.Reject, r.next-2); !ok || h.code != status.Refused || !h.fresh {
			t.Errorf("the last one was not refused: %s", r.tail())
		}
		tg.Unharmed()
		close(done)
		synctest.Wait()
		r.echoes()
		r.settled()
	})
}
