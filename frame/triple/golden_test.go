package triple

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/metadata"
	"github.com/sluicerpc/sluice/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// A step is what one side has written at once.
type step struct {
	server bool
	put    func(k *talk)
}

// does has the kernel's frames written.
func does(fs ...frame.Frame) func(k *talk) {
	return func(k *talk) {
		for i := range fs {
			k.do(&fs[i])
		}
	}
}

// says writes messages of stream 1 between frames.
func says(before frame.Frame, messages []string, after ...frame.Frame) func(k *talk) {
	return func(k *talk) {
		if before.Kind != frame.None {
			k.do(&before)
		}
		k.send(1, messages...)
		does(after...)(k)
	}
}

var (
	opening   = frame.Frame{Kind: frame.Open, Stream: 1, Method: "p.S/M", Grants: []frame.Grant{{Credit: 1000}}}
	accepting = frame.Frame{Kind: frame.Accept, Stream: 1, Grants: []frame.Grant{{Credit: 1000}}}
	ending    = frame.Frame{Kind: frame.EOS, Stream: 1}
)

var conversations = []struct {
	name  string
	steps []step
}{
	{"unary", []step{
		{false, says(frame.Frame{
			Kind: frame.Open, Stream: 1, Method: "p.S/M", Deadline: time.Second, Grants: []frame.Grant{{Credit: 1000}},
			Metadata: metadata.MD{{Key: "k", Value: "v"}, {Key: "b-bin", Value: "\x00\xff"}},
		}, []string{"hello"}, ending)},
		{true, says(accepting, []string{"reply"}, frame.Frame{Kind: frame.EOS, Stream: 1, Metadata: metadata.MD{{Key: "t", Value: "2"}}})},
		{false, does(frame.Frame{Kind: frame.Stop, Stream: 1}, frame.Frame{Kind: frame.Credit, Value: 100_010})},
		{true, does(frame.Frame{Kind: frame.Credit, Value: 100_010})},
	}},
	{"bidi", []step{
		{false, does(opening)},
		{true, does(accepting)},
		{false, says(frame.Frame{}, []string{"one", "", "two"})},
		{true, says(frame.Frame{Kind: frame.Credit, Stream: 1, Value: 1021}, []string{"three"})},
		{false, says(frame.Frame{Kind: frame.Credit, Stream: 1, Value: 1500}, []string{"four"}, ending)},
		{true, says(frame.Frame{}, []string{"five"}, ending)},
	}},
	{"trailers-only", []step{
		{false, says(opening, []string{"hello"}, ending)},
		{true, does(frame.Frame{Kind: frame.Reject, Stream: 1, Code: status.NotFound, Reason: "100% né", Metadata: metadata.MD{{Key: "t", Value: "2"}}})},
	}},
	{"refused", []step{
		{false, does(opening)},
		{true, does(frame.Frame{Kind: frame.Reject, Stream: 1, Code: status.Refused, Reason: "too many", NotProcessed: true})},
	}},
	{"cancel", []step{
		{false, says(opening, []string{"hello"})},
		{true, says(accepting, []string{"reply"})},
		{false, does(frame.Frame{Kind: frame.Reset, Stream: 1, Code: status.Cancelled, Reason: "why"})},
		{true, does(frame.Frame{Kind: frame.Credit, Value: 150_000})},
	}},
	{"goaway", []step{
		{false, does(opening)},
		{true, does(frame.Frame{Kind: frame.GoAway, Value: maxStream}, frame.Frame{Kind: frame.Ping, Value: 77})},
		{false, does(frame.Frame{Kind: frame.Pong, Value: 77})},
		{true, does(frame.Frame{Kind: frame.GoAway, Value: 1})},
		{true, does(frame.Frame{Kind: frame.GoAway, Value: 1, Code: status.EnhanceYourCalm, Reason: "too many pings"})},
	}},
}

// The golden files hold both sides' bytes of whole conversations, with stock programs and
// between sluice's, what the frames in them are, and what the other side's session makes of
// them: a change of any shows as a difference.
func TestConversations(t *testing.T) {
	for _, c := range conversations {
		for suffix, settings := range map[string][]uint32{"": nil, "-sluice": {setMaxMessage, 1 << 20}} {
			t.Run(c.name+suffix, func(t *testing.T) {
				client, server := start(t, true, settings...), start(t, false, settings...)
				var out strings.Builder
				fmt.Fprintf(&out, "the client begins\n%sthe server begins\n%s", hex.Dump(client.hello), hex.Dump(server.hello))
				for _, one := range c.steps {
					from, to, who := client, server, "the client writes"
					if one.server {
						from, to, who = server, client, "the server writes"
					}
					one.put(from)
					written := from.written()
					fmt.Fprintf(&out, "\n%s\n%s%s\n", who, hex.Dump(written), strings.Join(from.frames(written), "\n"))
					if told := from.told(); told != "" {
						fmt.Fprintf(&out, "and is told\n%s\n", told)
					}
					if read := to.in(written); read != "" {
						fmt.Fprintf(&out, "the other side reads\n%s\n", read)
					}
				}
				if n, m := client.s.streams.n.Load(), server.s.streams.n.Load(); n+m > 0 && c.name != "goaway" {
					t.Errorf("the client has %d streams in the end, the server %d", n, m)
				}
				golden(t, c.name+suffix+".txt", out.String())
			})
		}
	}
}

// written are the bytes that were written since.
func (k *talk) written() []byte {
	k.s.Flush(&k.o)
	p := bytes.Join(k.o.Vec(nil), nil)
	k.o.Reset()
	return p
}

// told is what the writer tells the kernel.
func (k *talk) told() string {
	var events []string
	for f := (frame.Frame{}); k.s.Event(&f); {
		events = append(events, describe(&f))
	}
	return strings.Join(events, "\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "conversations", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run the test with -rewrite and look at the change\ngot:\n%s", path, got)
	}
}
