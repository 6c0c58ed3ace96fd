package actor

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// keepSession keeps what messages a stream has written.
type keepSession struct {
	dropSession
	got [][]byte
}

func (s *keepSession) Messages(o *frame.Out, id uint64, run pool.Queue) {
	run.Each(func(m pool.Message) { s.got = append(s.got, bytes.Clone(m.Bytes())) })
	run.Release()
}

// misuse does what a program must not do, and returns what it panicked with.
func misuse(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

// What a program does with a message that it has handed over is its own fault, and does
// nothing to the message, or to who has the memory next.
func TestAMessageThatWasHandedOverIsOutOfReach(t *testing.T) {
	ctx := context.Background()
	ways := map[string]func(s *Stream, m pool.Message) error{
		"Send":    func(s *Stream, m pool.Message) error { return s.Send(ctx, m) },
		"TrySend": (*Stream).TrySend,
		"slot": func(s *Stream, m pool.Message) error {
			slot := <-s.Writable()
			defer slot.Cancel()
			return slot.Send(m)
		},
		"push": (*Stream).Push,
	}
	for name, send := range ways {
		t.Run(name, func(t *testing.T) {
			s, sess, o := benchStream(), &keepSession{}, &frame.Out{}
			m := pool.Copy(bytes.Repeat([]byte("a"), 64))
			if err := send(s, m); err != nil {
				t.Fatal(err)
			}
			for what, f := range map[string]func(){
				"release": m.Release, "forget": func() { pool.Forget(m) }, "release again": m.Release,
				"bytes":    func() { clear(m.Bytes()) },
				"truncate": func() { m.Truncate(1) },
				"share":    func() { m.Share().Release() },
				"send":     func() { _ = send(s, m) },
			} {
				r := misuse(f)
				if silent := what == "release" || what == "release again" || what == "forget"; r == nil && !silent {
					t.Errorf("%s after it was sent: no panic", what)
				}
			}
			other := pool.Copy(bytes.Repeat([]byte("b"), 64)) // may get the memory
			s.Fill(sess, o, endless, true)
			if len(sess.got) != 1 || string(sess.got[0]) != string(bytes.Repeat([]byte("a"), 64)) {
				t.Errorf("written: %q", sess.got)
			}
			other.Release()

			gone := pool.Copy([]byte("gone"))
			gone.Release()
			if misuse(func() { _ = send(s, gone) }) == nil {
				t.Error("sending what was released: no panic")
			}
			if err := s.TrySend(pool.Copy([]byte("next"))); err != nil {
				t.Errorf("the stream after that: %v", err)
			}
		})
	}
}

// Out takes a message in a goroutine of the library's: the stream fails, not the process.
func TestOutEndsItsStreamForAReleasedMessage(t *testing.T) {
	s := benchStream()
	m := pool.Copy([]byte("gone"))
	m.Release()
	s.Out() <- m
	<-s.SendDone()
	if err := s.Err(); !errors.Is(err, &status.StreamError{Code: status.Internal}) {
		t.Errorf("got %v, want INTERNAL", err)
	}
}
