package tally

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// An observer tallies connections alone.
type observer struct{ *Tally }

func (observer) StreamBegun(*kernel.Stream)                    {}
func (observer) StreamEnded(*kernel.Stream, kernel.StreamInfo) {}

// What connections have carried is counted once, while they are open and after that.
func TestSumsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var here, there Tally
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Observer: observer{&there}}, &kernel.ClientOptions{Observer: observer{&here}})
		srv.Handle("echo", func(ctx context.Context, s *kernel.Stream) error {
			for m, err := range s.All(ctx) {
				if err != nil {
					return err
				}
				if err := s.Send(ctx, m); err != nil {
					return err
				}
			}
			return nil
		})
		var last Sums
		for round := range 3 {
			s, err := client.Open(t.Context(), "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), pool.New(100)); err != nil {
				t.Fatal(err)
			}
			m, err := s.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			m.Release()
			synctest.Wait()
			n := uint64(round + 1)
			w := one(t, &here)
			if w.Conns != 1 || w.Streams != 1 || w.Begun != n || w.Sums.MessagesSent != n || w.Sums.MessagesReceived != n {
				t.Errorf("round %d, the client, open: %+v", round, w)
			}
			if w := one(t, &there); w.Conns != 1 || w.Streams != 1 || w.Handlers != 1 || w.Sums.MessagesReceived != n || w.Sums.BytesReceived == 0 {
				t.Errorf("round %d, the server, open: %+v", round, w)
			}
			_ = s.Conn().Close()
			synctest.Wait()
			w = one(t, &here)
			if w.Conns != 0 || w.Streams != 0 || w.Sums.MessagesSent != n || w.Ended[status.OK] != n {
				t.Errorf("round %d, ended: %+v", round, w)
			}
			if w.Sums.BytesSent <= last.BytesSent || w.Sums.BytesReceived <= last.BytesReceived {
				t.Errorf("round %d: %+v after %+v", round, w.Sums, last)
			}
			last = w.Sums
		}
	})
}

func one(t *testing.T, of *Tally) Wire {
	t.Helper()
	r := of.Read(time.Second, true)
	if len(r.Wires) != 1 || r.Wires[0].Protocol != "sluice" {
		t.Fatalf("%+v", r.Wires)
	}
	return r.Wires[0]
}

// What stands still is blocked once it has done so for a while.
func TestBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var here, there Tally
		srv, client := kerneltest.Start(t, &kernel.ServerOptions{Observer: observer{&there}}, &kernel.ClientOptions{Observer: observer{&here}})
		offers := srv.Offers()
		s, err := client.Open(t.Context(), "stuck", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (<-offers).Accept(pool.Message{}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for err == nil {
			m := pool.New(1 << 10)
			if err = s.TrySend(m); err != nil {
				m.Release()
			}
		}
		if !errors.Is(err, kernel.ErrWouldBlock) {
			t.Fatal(err)
		}
		s.Writable() // counts as a sender
		synctest.Wait()
		if b := here.Read(time.Second, true).Blocked[kernel.BlockedOnStreamCredit]; b.Streams != 0 {
			t.Errorf("at once: %+v", b)
		}
		there.Read(time.Second, true) // from the first look on
		time.Sleep(5 * time.Second)
		if b := here.Read(time.Second, true).Blocked[kernel.BlockedOnStreamCredit]; b.Streams != 1 || b.LongestStream < 4*time.Second {
			t.Errorf("the sender: %+v", b)
		}
		if b := there.Read(time.Second, true).Blocked[kernel.BlockedOnReader]; b.Streams != 1 || b.LongestStream < 4*time.Second {
			t.Errorf("the receiver: %+v", b)
		}
		if b := here.Read(time.Second, false).Blocked[kernel.BlockedOnStreamCredit]; b.Streams != 0 || b.LongestStream != 0 {
			t.Errorf("without streams: %+v", b)
		}
		s.Abort(status.Cancelled, "")
	})
}

// A peer can make up methods and codes; it can't make up labels.
func TestNamesAreBounded(t *testing.T) {
	m := NewMethods(3)
	for i := range 10 {
		if got := m.name("made/up"+strconv.Itoa(i), false); got != Other {
			t.Errorf("a method that nobody serves: %q", got)
		}
	}
	for _, c := range []struct {
		method string
		served bool
		want   string
	}{
		{"served", true, "served"},
		{"served", false, "served"}, // refused, this time
		{"not\xffUTF-8", true, "not\uFFFDUTF-8"},
		{"third", true, "third"},
		{"one too many", true, Other},
		{"third", true, "third"},
	} {
		if got := m.name(c.method, c.served); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	for c, want := range map[status.Code]string{status.OK: "OK", status.EnhanceYourCalm: "ENHANCE_YOUR_CALM", 12345: Other, 200: Other} {
		if got := Code(c); got != want {
			t.Errorf("%d: %q, want %q", c, got, want)
		}
	}
}

func TestWhoseFault(t *testing.T) {
	for c, want := range map[status.Code][2]bool{ // of the server's, of the client's side
		status.OK: {false, false}, status.NotFound: {false, true}, status.Cancelled: {false, true}, status.Internal: {true, true},
		status.ConnectionLost: {true, true}, status.GoingAway: {false, true}, status.FirstAppCode: {false, true},
	} {
		if got := [2]bool{Failed(false, c), Failed(true, c)}; got != want {
			t.Errorf("%v: %v, want %v", c, got, want)
		}
	}
}

// What only a handler can have said makes a name known; what the library or the peer may have said
// does not.
func TestRefusedByHandler(t *testing.T) {
	for _, c := range []struct {
		failure error
		code    status.Code
		want    bool
	}{
		{nil, status.NotFound, true},
		{nil, status.PermissionDenied, true},
		{nil, status.FirstAppCode, true},
		{nil, status.OK, false},
		{nil, status.Unimplemented, false},
		{nil, status.Refused, false},
		{&status.StreamError{Code: status.NotFound, Remote: true}, status.NotFound, false}, // the peer has reset it
	} {
		if got := refusedByHandler(c.failure, c.code); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
