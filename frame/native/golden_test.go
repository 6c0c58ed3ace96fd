package native

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/status"
)

// The golden files hold both sides' bytes of whole conversations, and what a
// reader makes of them: a change of either shows as a difference.
func TestTranscripts(t *testing.T) {
	for _, checked := range []bool{false, true} {
		for _, c := range conversations {
			name := c.name
			if checked {
				name += "-checked"
			}
			t.Run(name, func(t *testing.T) {
				client, server := pair(checked)
				var out strings.Builder
				for _, one := range c.steps {
					from, to, arrow := client, server, "client"
					if one.server {
						from, to, arrow = server, client, "server"
					}
					b := written(from, func(o *frame.Out) { one.put(from, o) })
					fmt.Fprintf(&out, "%s, %d bytes\n%s", arrow, len(b), hexLines(b))
					es, err := read(to, b, whole)
					out.WriteString(show(es, err) + "\n")
				}
				golden(t, name+".txt", out.String())
			})
		}
	}
}

// A step is what one side says in one write.
type step struct {
	server bool
	put    func(s *Session, o *frame.Out)
}

func say(f frame.Frame) func(*Session, *frame.Out) {
	return func(s *Session, o *frame.Out) { s.Control(o, &f) }
}

func message(id uint64, text string) func(*Session, *frame.Out) {
	return func(s *Session, o *frame.Out) { s.Message(o, id, messageOf(text)) }
}

func all(fs ...func(*Session, *frame.Out)) func(*Session, *frame.Out) {
	return func(s *Session, o *frame.Out) {
		for _, f := range fs {
			f(s, o)
		}
	}
}

var conversations = []struct {
	name  string
	steps []step
}{
	{"call", []step{
		{false, all(say(frame.Frame{
			Kind: frame.Open, Stream: 1, Method: "echo", Grants: []frame.Grant{{Credit: 8388}},
		}), message(1, "hello"), say(frame.Frame{Kind: frame.EOS, Stream: 1}))},
		{true, all(say(frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 8388}}}),
			message(1, "hello"), say(frame.Frame{Kind: frame.EOS, Stream: 1}),
			say(frame.Frame{Kind: frame.Ended, Stream: 1, Value: 1}))},
		{false, all(say(frame.Frame{Kind: frame.Ended, Stream: 1, Value: 1}),
			say(frame.Frame{Kind: frame.Credit, Value: 16<<20 + 37}))},
		{true, say(frame.Frame{Kind: frame.Credit, Value: 16<<20 + 37})},
	}},
	{"refused", []step{
		{false, say(frame.Frame{Kind: frame.Open, Stream: 1, Method: "nothing", Grants: []frame.Grant{{Credit: 100}}})},
		{true, say(frame.Frame{
			Kind: frame.Reject, Stream: 1, Code: status.Unimplemented, Reason: "no such method: nothing", NotProcessed: true,
		})},
	}},
	{"three-streams-one-request", []step{
		{false, say(frame.Frame{
			Kind: frame.Open, Stream: 1, Method: "trio", Grants: []frame.Grant{{Credit: 100}, {Credit: 200, Limit: 50}, {NoReceive: true}},
		})},
		{true, say(frame.Frame{
			Kind: frame.Accept, Stream: 1, Payload: []byte("two of them"), Grants: []frame.Grant{{Credit: 64}, {Credit: 64}},
		})},
	}},
	{"fragments", []step{
		{false, func(s *Session, o *frame.Out) {
			m := messageOf("a message in three pieces")
			fragment(s, o, 1, m, 0, 9)
			s.Message(o, 3, messageOf("another stream's"))
			fragment(s, o, 1, m, 9, 9)
			fragment(s, o, 1, m, 18, m.Len()-18)
		}},
		{true, all(say(frame.Frame{Kind: frame.Credit, Stream: 1, Value: 8388 + 57}),
			say(frame.Frame{Kind: frame.Read, Value: 65536}))},
	}},
	{"compressed", []step{
		{false, all(message(1, "as it is"), func(s *Session, o *frame.Out) { s.Message(o, 1, letters()) }, message(1, "as it is"),
			func(s *Session, o *frame.Out) {
				fragment(s, o, 1, letters(), 0, 4)
				fragment(s, o, 1, letters(), 4, 9)
			})},
	}},
	{"stop-and-reset", []step{
		{true, say(frame.Frame{Kind: frame.Stop, Stream: 1, Code: status.Cancelled})},
		{false, all(say(frame.Frame{Kind: frame.EOS, Stream: 1}),
			say(frame.Frame{Kind: frame.Reset, Stream: 3, Code: status.DeadlineExceeded, Reason: "deadline exceeded"}))},
	}},
	{"drain", []step{
		{true, all(say(frame.Frame{Kind: frame.GoAway, Value: maxStreamID}), say(frame.Frame{Kind: frame.Ping, Value: 77}))},
		{false, say(frame.Frame{Kind: frame.Pong, Value: 77})},
		{true, say(frame.Frame{Kind: frame.GoAway, Value: 5})},
	}},
}
