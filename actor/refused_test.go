package actor

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// An offer that is refused holds nothing more of what has arrived. Before the refusal is
// written the rest of a message may come whose first part is here, and that is no mistake of
// the peer's.
func TestARefusalLetsTheRestOfAMessageCome(t *testing.T) {
	s, l := receiver()
	now := time.Now()
	if err := fragment(s, make([]byte, 100), true, false, 300, now); err != nil {
		t.Fatal(err)
	}
	s.SetFirstFrame(&frame.Frame{Kind: frame.Reject, Code: status.Aborted})
	s.Drop()
	for _, last := range []bool{false, true} {
		if err := fragment(s, make([]byte, 100), false, last, 300, now); err != nil {
			t.Fatalf("a part of the message that was arriving: %v", err)
		}
	}
	var o frame.Out
	sess := &fakeSession{caps: nativeCaps}
	s.Fill(sess, &o, 0, false)
	if len(sess.wrote) != 1 || sess.wrote[0].Kind != frame.Reject {
		t.Errorf("written were %v, want the refusal", sess.wrote)
	}
	unread, _ := s.Unread()
	if taken, reserve := l.owed(); taken != 300+overhead || reserve != 0 || unread != 0 {
		t.Errorf("credit for %d bytes is back of %d, %d are reserved, %d unread", taken, 300+overhead, reserve, unread)
	}
}

// A stream that was aborted when it had a number, and that is lost before its open was
// written, writes nothing: its peer would find a reset of a stream that was never opened.
func TestNothingIsWrittenBehindAnOpenThatIsNot(t *testing.T) {
	s, _ := receiver()
	s.SetFirstFrame(&frame.Frame{Kind: frame.Open})
	s.Abort(status.Cancelled, "not needed", nil)
	s.Lost(&status.StreamError{Code: status.ConnectionLost})
	var o frame.Out
	sess := &fakeSession{caps: nativeCaps}
	s.Fill(sess, &o, 0, false)
	if len(sess.wrote) > 0 {
		t.Errorf("written were %v", sess.wrote)
	}
}

// cancelled is a link of a stream whose parent context has ended.
type cancelled struct{ *fakeLink }

func (cancelled) ParentErr() error { return context.Canceled }

// A stream that both sides have ended in order can't fail any more. But a channel of it that is
// closed before all was taken must not look as if all had been.
func TestAChannelThatIsClosedEarlySaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *Stream)
		want error
	}{
		"the parent has ended":         {(*Stream).ParentEnded, &status.StreamError{Code: status.Cancelled}},
		"this side reads no more":      {(*Stream).StopFeeding, ErrClosed},
		"nobody has ended the feeding": {nil, nil},
	} {
		for _, channel := range []string{"In", "Batches"} {
			t.Run(name+"/"+channel, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					x := newPaced(t, frame.Unpaced, func(c *Config) { c.Caps.HalfClose, c.InBuffer = true, 0 })
					for range 2 {
						if err := x.arrive(10); err != nil {
							t.Fatal(err)
						}
					}
					if err := errors.Join(x.s.PeerEnd(status.OK, "", nil), x.s.CloseSend(status.OK, "", nil)); err != nil {
						t.Fatal(err)
					}
					x.write()
					x.s.Lost(&status.StreamError{Code: status.ConnectionLost, Cause: io.ErrUnexpectedEOF}) // the peer has closed
					x.s.link = cancelled{x.link}
					in := func() bool { m, ok := <-x.s.In(); m.Release(); return ok }
					if channel == "Batches" {
						in = func() bool {
							b, ok := <-x.s.Batches()
							if ok {
								b.Release()
							}
							return ok
						}
						_ = x.s.Batches()
					} else {
						_ = x.s.In()
					}
					synctest.Wait()
					if c.end != nil {
						c.end(x.s)
						synctest.Wait()
					}
					for in() {
					}
					if err := x.s.Err(); !errors.Is(err, c.want) {
						t.Errorf("the channel is closed, and Err is %v, want %v", err, c.want)
					}
					for m, err := x.s.Receive(noWait); err == nil; m, err = x.s.Receive(noWait) {
						m.Release() // the rest is left
					}
				})
			})
		}
	}
}
