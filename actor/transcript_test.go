package actor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// Transcripts drive one stream through a connection that is not there. A file of
// testdata is comments, commands, and below each command what came of it:
//
//	# A comment.
//	send 40
//	----
//	ok
//	asked: a turn for data
//
// Commands of the user: send N, try N, receive, in, batch, slot, slot-send N,
// slot-cancel, out N, close-out, idle, close-send, close-receive, close, abort,
// err, status. Of the peer: deliver N..., fragment N of TOTAL (first, last),
// grant N, eos, ended N, stop, reset, refused, accepted N. Of the connection:
// fill N, control, full, room-gone, room, lost, sleep. Messages are numbered in the order
// in which each side sends them.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				golden(t, filepath.Base(f), newScript(t).run(string(text)))
			})
		})
	}
}

// script is one transcript's stream and what has not been reported yet.
type script struct {
	t       *testing.T
	s       *Stream
	link    *fakeLink
	sess    *fakeSession
	out     frame.Out
	slot    Slot
	sent    int // messages made by us
	arrived int // and by the peer
	news    chan string
	start   time.Time
	taken   int // as last reported
	reserve int
	retired bool
}

func newScript(t *testing.T) *script {
	return &script{t: t, link: newFakeLink(), sess: &fakeSession{caps: nativeCaps}, news: make(chan string, 100), start: time.Now()}
}

// run replays the commands of text and returns it with what they gave.
func (x *script) run(text string) string {
	var b strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		b.WriteString(line)
		if i < len(lines)-1 {
			b.WriteByte('\n')
		}
		if line == "" || line[0] == '#' {
			continue
		}
		result := x.do(line)
		b.WriteString("----\n" + result)
		for i+1 < len(lines) && lines[i+1] != "" {
			i++
		}
	}
	x.finish()
	return b.String()
}

// finish ends the stream, so that nothing is left running.
func (x *script) finish() {
	if x.s == nil {
		return
	}
	x.s.Lost(&status.StreamError{Code: status.ConnectionLost})
	x.s.EndContext()
	synctest.Wait()
	if err := x.link.broken(); err != nil {
		x.t.Error(err)
	}
}

// do runs one command and reports everything that it caused.
func (x *script) do(line string) string {
	words := strings.Fields(line)
	var b strings.Builder
	if res := x.command(words[0], words[1:]); res != "" {
		b.WriteString(res + "\n")
	}
	synctest.Wait()
	var news []string
	for len(x.news) > 0 {
		news = append(news, <-x.news+"\n")
	}
	slices.Sort(news) // goroutines tell theirs in any order
	b.WriteString(strings.Join(news, ""))
	for i := range x.sess.wrote {
		b.WriteString("wrote: " + text(&x.sess.wrote[i]) + "\n")
	}
	x.sess.wrote = nil
	x.report(&b)
	return b.String()
}

// report says what changed at the connection.
func (x *script) report(b *strings.Builder) {
	l := x.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []struct {
		on   *bool
		text string
	}{{&l.control, "asked: a turn for control"}, {&l.data, "asked: a turn for data"}, {&l.await, "asked: a call when there is room"}} {
		if *c.on {
			fmt.Fprintln(b, c.text)
		}
	}
	l.await = false
	if l.taken != x.taken {
		fmt.Fprintf(b, "returned to the connection: %d\n", l.taken-x.taken)
	}
	if l.reserve != x.reserve {
		fmt.Fprintf(b, "reserved for fragments: %d\n", l.reserve)
	}
	if retired := l.retired > 0; retired != x.retired {
		fmt.Fprintln(b, "left the connection")
	}
	x.taken, x.reserve, x.retired = l.taken, l.reserve, l.retired > 0
}

// text is a frame in words.
func text(f *frame.Frame) string {
	reason := ""
	if f.Reason != "" {
		reason = " " + strconv.Quote(f.Reason)
	}
	switch f.Kind {
	case frame.Data:
		s := fmt.Sprintf("DATA #%d %d", number(f.Payload, f.First), len(f.Payload))
		if f.First && f.Last {
			return s
		}
		s += fmt.Sprintf(" of %d", f.Total)
		if f.Last {
			s += " last"
		}
		return s
	case frame.EOS:
		s := "EOS"
		if f.Code != status.OK || reason != "" {
			s += " " + f.Code.String() + reason
		}
		return s
	case frame.Credit:
		return fmt.Sprintf("CREDIT %d", f.Value)
	case frame.Ended:
		return fmt.Sprintf("ENDED %d", f.Value)
	case frame.Stop:
		return "STOP " + f.Code.String()
	case frame.Reset:
		return "RESET " + f.Code.String() + reason
	case frame.Open:
		return "OPEN"
	}
	return fmt.Sprintf("frame of kind %d", f.Kind)
}

// number is the ordinal that stamp put into a message; 0 if it is not there.
func number(p []byte, first bool) int {
	if !first || len(p) == 0 {
		return 0
	}
	return int(p[0])
}

// stamped returns a message of n bytes that carries its ordinal.
func stamped(n, ordinal int) pool.Message {
	m := pool.New(n)
	for i := range m.Bytes() {
		m.Bytes()[i] = byte(ordinal)
	}
	return m
}

func got(m pool.Message) string {
	defer m.Release()
	return fmt.Sprintf("#%d %d bytes", number(m.Bytes(), true), m.Len())
}

// word names an error by the sentinel that it is.
func word(err error) string {
	for _, e := range []error{
		ErrWouldBlock, ErrSendClosed, ErrStopped, ErrNotReadable, ErrSlotUsed, ErrChannelInUse, ErrTooLarge, ErrNotSupported,
	} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// later runs f by itself and reports its result when there is one.
func (x *script) later(name string, f func() string) string {
	done := make(chan string, 1)
	go func() {
		res := f()
		select {
		case done <- res:
		default:
			x.news <- name + ": " + res
		}
	}()
	synctest.Wait()
	select {
	case res := <-done:
		return res
	default:
		done <- "" // from now on it is news
		return "waits"
	}
}

func (x *script) next(n int) pool.Message {
	x.sent++
	return stamped(n, x.sent)
}

// open ends the stream that there was and makes another; options are key=value.
func (x *script) open(args []string) string {
	x.finish()
	x.link, x.sent, x.arrived = newFakeLink(), 0, 0
	x.taken, x.reserve, x.retired = 0, 0, false
	cfg := &Config{
		Method: "m", Caps: nativeCaps, InBuffer: 16, MaxBatch: 128, MaxReceive: 1 << 20, MaxSend: 1 << 20,
		Window: 1000, MaxWindow: 1000, SendCredit: 1000,
	}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "window":
			cfg.Window, cfg.MaxWindow = n, n
		case "most":
			cfg.MaxWindow = n
			x.link.spare = n
		case "credit":
			cfg.SendCredit = uint64(n)
		case "limit":
			cfg.SendLimit = n
		case "in":
			cfg.InBuffer = n
		case "batch":
			cfg.MaxBatch = n
		case "max-send":
			cfg.MaxSend = n
		case "max-receive":
			cfg.MaxReceive = n
		case "budget":
			x.link.budget = n
		case "idle":
			cfg.IdleTimeout, _ = time.ParseDuration(v)
		case "no-receive":
			cfg.NoReceive = true
		case "no-send":
			cfg.NoSend = true
		case "no-half-close":
			cfg.Caps.HalfClose = false
		case "unnumbered":
			x.link.id = 0
		default:
			x.t.Fatalf("unknown option %q", a)
		}
	}
	x.s = &Stream{}
	x.s.Init(x.link, cfg)
	return "ok"
}

func (x *script) command(name string, args []string) string {
	nums := make([]int, len(args))
	for i, a := range args {
		nums[i], _ = strconv.Atoi(a)
	}
	if name == "stream" {
		return x.open(args)
	}
	if res, ok := x.user(name, nums); ok {
		return res
	}
	if res, ok := x.channels(name, nums); ok {
		return res
	}
	if res, ok := x.peer(name, nums, args); ok {
		return res
	}
	x.t.Fatalf("unknown command %q", name)
	return ""
}

// user is what the application does by methods.
func (x *script) user(name string, n []int) (string, bool) {
	s, ctx := x.s, context.Background()
	switch name {
	case "send":
		m := x.next(n[0])
		return x.later(fmt.Sprintf("send of #%d", x.sent), func() string { return word(s.Send(ctx, m)) }), true
	case "send-1s":
		m := x.next(n[0])
		return x.later(fmt.Sprintf("send of #%d", x.sent), func() string {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return word(s.Send(ctx, m))
		}), true
	case "try":
		m := x.next(n[0])
		err := s.TrySend(m)
		if err != nil {
			m.Release()
			x.sent--
		}
		return word(err), true
	case "receive":
		return x.later("receive", func() string {
			m, err := s.Receive(ctx)
			if err != nil {
				return word(err)
			}
			return got(m)
		}), true
	case "close-send":
		return word(s.CloseSend(status.OK, "", nil)), true
	case "finish":
		s.Finish(status.NotFound, "no such thing", nil)
		return "ok", true
	case "close-receive":
		s.CloseReceive(status.Cancelled)
		return "ok", true
	case "close":
		return x.later("close", func() string { return word(s.Close(ctx)) }), true
	case "close-1s":
		return x.later("close", func() string {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return word(s.Close(ctx))
		}), true
	case "abort":
		s.Abort(status.Aborted, "given up", nil)
		return "ok", true
	case "err":
		return word(s.Err()), true
	case "discarded":
		return fmt.Sprint(s.Discarded()), true
	case "state":
		return s.st.String(), true
	}
	return "", false
}

// channels is what it does by channels.
func (x *script) channels(name string, n []int) (string, bool) {
	s := x.s
	switch name {
	case "in":
		in := s.In()
		synctest.Wait()
		select {
		case m, ok := <-in:
			if !ok {
				return "closed", true
			}
			return got(m), true
		default:
			return "empty", true
		}
	case "in-hold": // takes a message and does not look at it
		m := <-s.In()
		return fmt.Sprintf("%d bytes, not looked at", m.Len()), true
	case "batch":
		c := s.Batches()
		synctest.Wait()
		select {
		case b, ok := <-c:
			if !ok {
				return "closed", true
			}
			defer b.Release()
			return fmt.Sprintf("%d messages from #%d", b.Len(), number(b.At(0).Bytes(), true)), true
		default:
			return "empty", true
		}
	case "writable":
		select {
		case slot, ok := <-s.Writable():
			if !ok {
				return "closed", true
			}
			x.slot = slot
			return "a slot", true
		default:
			return "no slot", true
		}
	case "slot-send":
		m := x.next(n[0])
		err := x.slot.Send(m)
		if err != nil {
			x.sent--
			m.Release()
		}
		return word(err), true
	case "slot-cancel":
		x.slot.Cancel()
		return "ok", true
	case "out":
		out, m := s.Out(), x.next(n[0])
		return x.later(fmt.Sprintf("out of #%d", x.sent), func() string {
			select {
			case out <- m:
				return "ok"
			case <-s.SendDone():
				return "the sending half is over"
			}
		}), true
	case "close-out":
		close(s.Out())
		return "ok", true
	case "idle":
		select {
		case at := <-s.Idle():
			return fmt.Sprintf("silent since %v", at.Sub(x.start)), true
		default:
			return "no notice", true
		}
	case "over":
		over := ""
		for _, c := range []struct {
			c    <-chan struct{}
			name string
		}{{s.SendDone(), "SendDone"}, {s.Done(), "Done"}, {s.ContextDone(), "Context"}} {
			select {
			case <-c.c:
				over += " " + c.name
			default:
			}
		}
		return "over:" + over, true
	}
	return "", false
}

// peer is what the connection does, for itself or for the peer.
func (x *script) peer(name string, n []int, args []string) (string, bool) {
	s, now := x.s, time.Now()
	switch name {
	case "deliver":
		var q pool.Queue
		for _, size := range n {
			x.arrived++
			q.Push(arriving(stamped(size, x.arrived)))
		}
		return said(s.Deliver(&q, now)), true
	case "fragment": // N of TOTAL [first] [last]
		first, last := strings.Contains(strings.Join(args, " "), "first"), strings.Contains(strings.Join(args, " "), "last")
		if first {
			x.arrived++
		}
		p := make([]byte, n[0])
		for i := range p {
			p[i] = byte(x.arrived)
		}
		return said(fragment(s, p, first, last, n[2], now)), true
	case "grant":
		return said(s.PeerGrant(uint64(n[0]))), true
	case "eos":
		return said(s.PeerEnd(status.OK, "", nil)), true
	case "eos-failed":
		return said(s.PeerEnd(status.NotFound, "no such thing", nil)), true
	case "ended":
		return said(s.PeerEnded(uint64(n[0]))), true
	case "stop":
		s.PeerStopped(status.Cancelled)
	case "reset":
		s.PeerReset(status.Aborted, "peer gave up")
	case "refused":
		s.Refused(status.Unimplemented, "no such method", true, nil)
	case "accepted":
		s.Accepted(pool.Message{}, nil, frame.Grant{Credit: uint64(n[0])}, false)
	case "lost":
		s.Lost(&status.StreamError{Code: status.ConnectionLost, Cause: errors.New("cable cut")})
	case "fill":
		if !x.link.take(false) {
			return "nothing asked for", true
		}
		used, again := s.Fill(x.sess, &x.out, n[0], true)
		if again {
			x.link.put()
		}
		return fmt.Sprintf("used %d, more: %v", used, again), true
	case "control":
		if !x.link.take(true) {
			return "nothing asked for", true
		}
		s.Fill(x.sess, &x.out, 0, false)
	case "full":
		x.link.full = true
	case "room-gone":
		x.link.full = true
		s.RoomGone()
	case "room":
		x.link.full = false
		s.RoomFree()
	case "sleep":
		d, _ := time.ParseDuration(args[0])
		time.Sleep(d)
	default:
		return "", false
	}
	return "", true
}

// said is what the connection's reader is told.
func said(err error) string {
	var v *frame.Violation
	if errors.As(err, &v) {
		return "the connection ends: " + v.Error()
	}
	return word(err)
}
