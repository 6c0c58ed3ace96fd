package actor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// arriveAll delivers messages as the connection's reader does.
func arriveAll(t *testing.T, s *Stream, ms ...pool.Message) {
	t.Helper()
	var run pool.Queue
	for _, m := range ms {
		run.Push(m)
	}
	if err := s.Deliver(&run, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// reading returns what a reader has got by now, as runs of equal bytes, and its end.
type reading struct {
	got []string
	err error
}

func (r *reading) add(m pool.Message) {
	p := m.Bytes()
	if len(bytes.Trim(p, string(p[:1]))) > 0 {
		r.got = append(r.got, "a mixture")
	} else {
		r.got = append(r.got, fmt.Sprintf("%d %c", len(p), p[0]))
	}
	m.Release()
}

// unpackReaders are the ways to read a stream to its end.
var unpackReaders = map[string]func(s *Stream, r *reading){
	"Receive": func(s *Stream, r *reading) {
		for r.err == nil {
			var m pool.Message
			if m, r.err = s.Receive(context.Background()); r.err == nil {
				r.add(m)
			}
		}
	},
	"In": func(s *Stream, r *reading) {
		for m := range s.In() {
			r.add(m)
		}
		_, r.err = s.Receive(context.Background())
	},
	"Batches": func(s *Stream, r *reading) {
		for b := range s.Batches() {
			for i := range b.Len() {
				r.add(b.Keep(i))
			}
			b.Release()
		}
		_, r.err = s.Receive(context.Background())
	},
}

func compressedStream(l *fakeLink) *Stream {
	s := &Stream{}
	s.Init(l, &Config{Caps: nativeCaps, InBuffer: 4, MaxBatch: 4, MaxReceive: 500, MaxSend: 1000, Window: 10_000})
	return s
}

func plain(b byte, n int) pool.Message { return arriving(pool.Copy(bytes.Repeat([]byte{b}, n))) }

// Whoever takes a message that came compressed gets what it holds, in order among others,
// and what it has cost on the wire is what returns as credit.
func TestACompressedMessageIsUnpackedForItsReader(t *testing.T) {
	for name, read := range unpackReaders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLink()
				s := compressedStream(l)
				arriveAll(t, s, plain('a', 5), packed('b', 300), packed('c', 500), plain('d', 7))
				// And one in fragments.
				for i, p := range [][]byte{{'e'}, {0, 9}} {
					f := frame.Frame{Kind: frame.Data, Payload: p, First: i == 0, Last: i == 1, Packed: i == 0, Total: 3}
					f.SetCost(overhead)
					if err := s.Fragment(&f, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				// The fragments have returned their credit, and hold their memory.
				if held, _ := s.ReadProgress(); held != 5+3+3+7+4*overhead+3 {
					t.Errorf("%d bytes wait, not what the wire has brought", held)
				}
				var r reading
				done := make(chan struct{})
				go func() { read(s, &r); close(done) }()
				synctest.Wait()
				if err := s.PeerEnd(status.OK, "", nil); err != nil {
					t.Fatal(err)
				}
				<-done
				if got, want := fmt.Sprint(r.got), "[5 a 300 b 500 c 7 d 9 e]"; got != want || !errors.Is(r.err, io.EOF) {
					t.Errorf("got %s, %v, want %s", got, r.err, want)
				}
				s.Abort(status.Cancelled, "test over", nil)
				if taken, reserved := l.owed(); taken != 5+3+3+7+3+5*overhead || reserved != 0 {
					t.Errorf("%d bytes of credit returned, %d reserved", taken, reserved)
				}
			})
		})
	}
}

// A message that holds more than it may, or nothing that can be read, ends its stream, and
// not in order: what came before it was delivered, and nothing behind it is.
func TestAMessageThatCannotBeUnpackedEndsItsStream(t *testing.T) {
	for what, c := range map[string]struct {
		bad  func() pool.Message
		code status.Code
	}{
		"a bomb": {func() pool.Message { return packed('b', 501) }, status.TooLarge},
		"rubbish": {func() pool.Message {
			m := plain('b', 9)
			pool.MarkPacked(m)
			return m
		}, status.DataLoss},
	} {
		for name, read := range unpackReaders {
			for _, ended := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/ended %v", what, name, ended), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						base := pool.Outstanding()
						l := newFakeLink()
						s := compressedStream(l)
						arriveAll(t, s, plain('a', 5), packed('b', 300), c.bad(), plain('d', 7), packed('e', 8))
						if ended { // in order, which it is no more
							if err := s.PeerEnd(status.OK, "", nil); err != nil {
								t.Fatal(err)
							}
						}
						var r reading
						read(s, &r)
						if got := fmt.Sprint(r.got); got != "[5 a 300 b]" {
							// A batch goes as a whole, or not at all.
							if name != "Batches" || got != "[]" {
								t.Errorf("got %s", got)
							}
						}
						if !errors.Is(r.err, &status.StreamError{Code: c.code}) || !errors.Is(s.Err(), &status.StreamError{Code: c.code}) {
							t.Errorf("the end is %v, the stream's error %v, want code %v", r.err, s.Err(), c.code)
						}
						if n := pool.Outstanding() - base; n != 0 {
							t.Errorf("%d messages are held", n)
						}
					})
				})
			}
		}
	}
}

// A reader that gives a channel up leaves what it has not taken, unpacked or not, to
// Receive, and it counts as taken once.
func TestAnAbandonedChannelLeavesCompressedMessages(t *testing.T) {
	for _, name := range []string{"In", "Batches"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLink()
				s := compressedStream(l)
				s.cfg.InBuffer = 0
				if name == "In" {
					_ = s.In()
				} else {
					_ = s.Batches()
				}
				arriveAll(t, s, packed('a', 9), packed('b', 8))
				synctest.Wait() // it has the first in hand
				s.StopFeeding()
				synctest.Wait()
				held := func() (Volume, Volume) {
					return s.Info(time.Now()).Mailbox, Volume{uint64(s.in.Len()), uint64(s.in.Bytes())}
				}
				if mailbox, in := held(); mailbox != in || in.Messages != 2 {
					t.Errorf("the mailbox has %+v: %+v", in, mailbox)
				}
				var r reading
				s.mu.Lock()
				for m, ok := s.in.Pop(); ok; m, ok = s.in.Pop() {
					s.accountOne(m)
					s.mu.Unlock()
					u, err := s.unpack(m)
					if err != nil {
						t.Fatal(err)
					}
					r.add(u)
					s.mu.Lock()
				}
				taken := s.messagesTaken
				s.mu.Unlock()
				if mailbox, _ := held(); mailbox != (Volume{}) {
					t.Errorf("all was taken: %+v", mailbox)
				}
				if got := fmt.Sprint(r.got); got != "[9 a 8 b]" || taken != 2 {
					t.Errorf("left are %s, %d were taken", got, taken)
				}
				s.Abort(status.Cancelled, "test over", nil)
				if back, _ := l.owed(); back != 2*(3+overhead) {
					t.Errorf("%d bytes of credit returned", back)
				}
			})
		})
	}
}

// A reply that can't be unpacked is an error for everybody who asks for it.
func TestAReplyThatCannotBeUnpacked(t *testing.T) {
	s := compressedStream(newFakeLink())
	if !s.Accepted(pool.Message{}, metadata.MD{{Key: "k"}}, frame.Grant{Credit: 1000}, true) {
		t.Fatal("not accepted")
	}
	bad := plain('b', 9)
	pool.MarkPacked(bad)
	arriveAll(t, s, bad)
	for i := range 2 {
		if m, _, err := s.Answer(context.Background()); !errors.Is(err, &status.StreamError{Code: status.DataLoss}) || !m.IsZero() {
			t.Errorf("answer %d: %d bytes, %v", i, m.Len(), err)
		}
	}
}

// However many wait, one message is unpacked before it is taken.
func TestOneMessageIsUnpackedAheadOfItsReader(t *testing.T) {
	for name, read := range map[string]func(s *Stream){
		"In": func(s *Stream) { _ = s.In() }, "Batches": func(s *Stream) { _ = s.Batches() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFakeLink()
				s := compressedStream(l)
				s.cfg.InBuffer, s.cfg.MaxBatch = 0, 100
				read(s)
				for range 20 {
					arriveAll(t, s, packed('x', 400))
				}
				synctest.Wait()
				if taken, _ := l.owed(); taken > 3+overhead {
					t.Errorf("%d bytes of credit have returned, of one message", taken)
				}
				s.Abort(status.Cancelled, "test over", nil)
				s.CloseReceive(status.OK)
				synctest.Wait()
			})
		})
	}
}
