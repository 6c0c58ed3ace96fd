package actor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// packing returns a stream whose peer unpacks gzip, with credit for credit bytes.
func packing(c pool.Compression, credit uint64) (*Stream, *fakeLink) {
	s, l := &Stream{}, newFakeLink()
	s.Init(l, &Config{
		Method: "m", Caps: nativeCaps, MaxReceive: 1 << 20, MaxSend: 1 << 20, Window: 1 << 20, SendCredit: credit,
		Compression: c, Unpacks: pool.CompressionsOf(pool.Gzip),
	})
	return s, l
}

// alike is a message that the fakes can compress.
func alike(n int) pool.Message { return pool.Copy(bytes.Repeat([]byte("x"), n)) }

// queued are the lengths of the messages that wait to be written.
func queued(s *Stream) (lens []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Each(func(m pool.Message) {
		lens = append(lens, fmt.Sprintf("%d packed=%v cost=%d", m.Len(), pool.IsPacked(m), pool.Cost(m)))
	})
	return lens
}

// sending are the ways to send a message.
var sending = map[string]func(s *Stream, m pool.Message) error{
	"Send":    func(s *Stream, m pool.Message) error { return s.Send(context.Background(), m) },
	"TrySend": func(s *Stream, m pool.Message) error { return s.TrySend(m) },
	"Slot":    func(s *Stream, m pool.Message) error { return (<-s.Writable()).Send(m) },
	"Push":    func(s *Stream, m pool.Message) error { return s.Push(m) },
	"Out": func(s *Stream, m pool.Message) error {
		select {
		case s.Out() <- m:
			for len(queued(s)) == 0 && s.Err() == nil { // it has been received, and is being compressed
				time.Sleep(time.Millisecond)
			}
			return nil
		case <-s.SendDone():
			return s.Err()
		}
	},
}

// Whatever way it is sent, a message is queued compressed, and costs what it is then. The
// message's own choice comes before its stream's.
func TestMessagesAreCompressedBeforeTheyAreQueued(t *testing.T) {
	for name, send := range sending {
		for _, c := range []struct {
			stream, own pool.Compression
			want        string
		}{
			{0, 0, "1000 packed=false cost=1032"},
			{pool.Gzip, 0, "3 packed=true cost=35"},
			{0, pool.Gzip, "3 packed=true cost=35"},
			{pool.Gzip, pool.NoCompression, "1000 packed=false cost=1032"},
		} {
			s, _ := packing(c.stream, 5000)
			m := alike(1000)
			m.SetCompression(c.own)
			if err := send(s, m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := queued(s); len(got) != 1 || got[0] != c.want {
				t.Errorf("%s, stream %d, message %d: %q, want %q", name, c.stream, c.own, got, c.want)
			}
			s.Abort(status.Cancelled, "over", nil)
		}
	}
}

// What fails is still its sender's, as it was: nothing else is kept.
func TestACompressedSendThatFailsLeavesTheMessage(t *testing.T) {
	ended := func(s *Stream) { s.Abort(status.Cancelled, "over", nil) }
	for _, c := range []struct {
		name string
		prep func(s *Stream)
		send func(s *Stream, m pool.Message) error
		own  pool.Compression
		want error
	}{
		{"Send, not unpacked", func(*Stream) {}, sending["Send"], pool.Zstd, ErrNotSupported},
		{"TrySend, not unpacked", func(*Stream) {}, sending["TrySend"], pool.Zstd, ErrNotSupported},
		{"Slot, not unpacked", func(*Stream) {}, sending["Slot"], pool.Zstd, ErrNotSupported},
		{"Push, not unpacked", func(*Stream) {}, sending["Push"], pool.Zstd, ErrNotSupported},
		{"Send, ended", ended, sending["Send"], 0, &status.StreamError{Code: status.Cancelled}},
		{"TrySend, ended", ended, sending["TrySend"], 0, &status.StreamError{Code: status.Cancelled}},
		{"Send, no credit", fillUp, func(s *Stream, m pool.Message) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			return s.Send(ctx, m)
		}, 0, context.DeadlineExceeded},
		{"a slot used before", func(*Stream) {}, func(s *Stream, m pool.Message) error {
			slot := <-s.Writable()
			slot.Cancel()
			return slot.Send(m)
		}, 0, ErrSlotUsed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := packing(pool.Gzip, 100)
			c.prep(s)
			before := pool.Outstanding()
			m := alike(1000)
			m.SetCompression(c.own)
			if err := c.send(s, m); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if m.Len() != 1000 || !bytes.Equal(m.Bytes(), bytes.Repeat([]byte("x"), 1000)) {
				t.Error("the message has changed")
			}
			m.Release()
			if n := pool.Outstanding(); n != before {
				t.Errorf("%d messages are kept", n-before)
			}
			s.Abort(status.Cancelled, "over", nil)
		})
	}
}

func fillUp(s *Stream) {
	for s.TrySend(alike(100)) == nil {
	}
}

// A message on Out whose compression the peer does not know ends the stream: there is
// nobody to be told otherwise.
func TestOutCannotCompress(t *testing.T) {
	s, _ := packing(0, 5000)
	m := alike(1000)
	m.SetCompression(pool.Zstd)
	s.Out() <- m
	<-s.SendDone()
	if err := s.Err(); !errors.Is(err, &status.StreamError{Code: status.Unimplemented}) {
		t.Errorf("the stream ended with %v", err)
	}
}

// Without credit TrySend does not compress for nothing.
func TestTrySendLooksForCreditFirst(t *testing.T) {
	s, l := packing(pool.Gzip, 10)
	fillUp(s)
	before := l.packs
	m := alike(1000)
	if err := s.TrySend(m); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("%v", err)
	}
	m.Release()
	if l.packs != before {
		t.Error("it was compressed")
	}
	s.Abort(status.Cancelled, "over", nil)
}

// Nobody waits for a stream's lock while a message is compressed for it.
func TestAStreamIsFreeWhileItCompresses(t *testing.T) {
	s, l := packing(pool.Gzip, 5000)
	unlocked := make(chan bool, 1)
	l.packing = func() {
		free := s.mu.TryLock()
		if free {
			s.mu.Unlock()
		}
		unlocked <- free
	}
	if err := s.Send(t.Context(), alike(1000)); err != nil {
		t.Fatal(err)
	}
	if !<-unlocked {
		t.Error("the stream was locked")
	}
	s.Abort(status.Cancelled, "over", nil)
}
