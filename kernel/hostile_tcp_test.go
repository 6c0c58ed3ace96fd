package kernel_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// The catalogue's rows run in memory, where nothing depends on timing. These are
// the same over sockets: an event loop decodes in another way than a goroutine
// that reads, and ends a connection in another way.
func TestHostileOverTCP(t *testing.T) {
	hundred := make([]byte, 100)
	for _, row := range []hostileRow{
		{name: "08 length of 16 MiB", do: says(head(0xffffff, typeData, 1)), ends: connection, code: status.FrameSize},
		{name: "11 a type that must be known", do: says(head(0, 15, 0)), ends: connection, code: status.Protocol},
		{name: "14 a second hello", do: says(frames(frame.Frame{Kind: frame.Hello, Settings: hello()})), ends: connection, code: status.Protocol},
		{name: "25 two messages mixed", do: says(first(1, 100, hundred[:10]), first(1, 100, hundred[:10])), ends: connection, code: status.Protocol},
		{name: "27 a message beyond the limit", do: says(first(1, 1<<20+1, hundred), more(1, hundred, false)), ends: stream, code: status.TooLarge},
		{name: "31 open of a number in use", do: says(frames(openFrame(1, "echo"))), ends: connection, code: status.Protocol},
		{name: "41 a byte beyond the credit", do: after(opens("stuck"), sends(data(1, make([]byte, grant-31)))), ends: connection, code: status.FlowControl},
		{name: "43 no such method", do: opens("nothing"), ends: stream, code: status.Unimplemented},
		{name: "46 open and reset without a pause", do: openAndReset, ends: nothing, alloc: 64 << 20},
		{name: "75 many frames in one piece", do: says(data(1, []byte("a")), data(1, nil), frames(eos)), ends: nothing},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.alloc = max(row.alloc, 4<<20) // the engine's loops count too
			row.run(newTarget(t, false, kernel.ServerOptions{Limits: row.limits()}))
		})
	}
}

// Row 4, 67 and 68 over sockets: one client's connection is reset while the
// server writes to it; nine others do not notice, and nothing of it is left.
func TestHostileResetWhileTheServerWrites(t *testing.T) {
	tg := newTarget(t, false, kernel.ServerOptions{Limits: targetLimits()})
	tg.ConnectHonest()
	var others []*raw
	for range 9 {
		others = append(others, tg.attack(hello()))
	}
	for range 10 {
		r := tg.silent(hello())
		r.open("source")
		r.open("stuck")
		p := make([]byte, 1)
		if _, err := r.nc.Read(p); err != nil {
			t.Fatal(err)
		}
		if err := r.nc.(*net.TCPConn).SetLinger(0); err != nil { // close will reset
			t.Fatal(err)
		}
		_ = r.nc.Close()
	}
	if !tg.Settle(func() bool { return tg.Srv.Stats().Conns == 10 }) {
		t.Errorf("%d connections are left, 10 were not attacked", tg.Srv.Stats().Conns)
	}
	for _, r := range others {
		r.echoes()
	}
	tg.Unharmed()
}

// Rows 20 and 21: whichever part of a record is damaged, its length, the check of it, its sum,
// a frame's header or a payload, the connection ends and nothing of the record is
// processed.
func TestHostileChecksums(t *testing.T) {
	for _, row := range []struct {
		name string
		at   int
		code status.Code
	}{
		{"20 check of the length", 3, status.Checksum},
		{"21 length of the record", 0, status.Checksum},
		{"20 sum", 5, status.Checksum},
		{"21 length of a frame", 8, status.Checksum},
		{"20 type of a frame", 11, status.Checksum},
		{"20 number of a stream", 12, status.Checksum},
		{"20 payload", 20, status.Checksum},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tg := newTarget(t, true, kernel.ServerOptions{})
				got := make(chan string, 10)
				tg.Srv.Handle("log", func(ctx context.Context, s *kernel.Stream) error {
					for m, err := range s.All(ctx) {
						if err != nil {
							return err
						}
						got <- string(m.Bytes())
						m.Release()
					}
					return nil
				})
				tg.ConnectHonest()
				own := hello()
				own.Checksum = true
				r := tg.attack(own)
				record := func(f func(o *frame.Out)) []byte {
					r.mu.Lock()
					defer r.mu.Unlock()
					var o frame.Out
					f(&o)
					r.sess.Flush(&o)
					return slices.Concat(o.Vec(nil)...)
				}
				open := openFrame(1, "log")
				_, _ = r.nc.Write(record(func(o *frame.Out) { r.sess.Control(o, &open) }))
				_, _ = r.nc.Write(record(func(o *frame.Out) { appendMessage(r.sess, o, 1, pool.MessageOf([]byte("whole"))) }))
				bad := record(func(o *frame.Out) {
					appendMessage(r.sess, o, 1, pool.MessageOf([]byte("damaged")))
					appendMessage(r.sess, o, 1, pool.MessageOf([]byte("beside it")))
				})
				bad[row.at] ^= 4
				_, _ = r.nc.Write(append(bad, bad...))
				synctest.Wait()
				if !r.ended(row.code) {
					t.Errorf("the connection did not end with %v: %s", row.code, r.tail())
				}
				if len(got) != 1 || <-got != "whole" {
					t.Error("something came out of the damaged record")
				}
				tg.Unharmed()
			})
		})
	}
}

// appendMessage appends one whole message.
func appendMessage(s frame.Session, o *frame.Out, id uint64, m pool.Message) {
	var run pool.Queue
	run.Push(m)
	s.Messages(o, id, run)
}
