package seastar

import (
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
)

// Two sides that send the extension do not linger before they close a stream's
// connection; any others do.
func TestTwoSidesWithTheExtensionDoNotLinger(t *testing.T) {
	for name, c := range map[string]struct {
		client   *Protocol
		server   *Protocol
		extended bool // the server answers with the extension
		want     time.Duration
	}{
		"both ours":        {&Protocol{}, &Protocol{}, true, 0},
		"no extensions":    {&Protocol{NoExtensions: true}, &Protocol{}, true, DefaultLinger},
		"a Seastar server": {&Protocol{}, &Protocol{}, false, DefaultLinger},
	} {
		t.Run(name, func(t *testing.T) {
			c.server.parents.add(1 << idShift)
			answer := hello(record{featConnectionID, idData(2 << idShift)})
			_, said, _, err := dial(c.client, 1<<idShift, answer)
			if err != nil {
				t.Fatal(err)
			}
			server, reply, _, err := serve(c.server, said, len(said), len(said))
			if err != nil {
				t.Fatal(err)
			}
			if !c.extended {
				reply = answer
			} else if linger := lingerOf(t, server); linger != c.want {
				t.Errorf("the server waits %v, want %v", linger, c.want)
			}
			client, _, _, err := dial(c.client, 1<<idShift, reply)
			if err != nil {
				t.Fatal(err)
			}
			if linger := lingerOf(t, client); linger != c.want {
				t.Errorf("the client waits %v, want %v", linger, c.want)
			}
		})
	}
}

// lingerOf ends both directions of a stream, and returns how long its connection
// then waits for the peer.
func lingerOf(t *testing.T, s frame.Session) time.Duration {
	t.Helper()
	var o frame.Out
	var f frame.Frame
	for p := []byte{0xff, 0xff, 0xff, 0xff}; ; {
		n, err := s.Next(p, &f)
		if err != nil {
			t.Fatal(err)
		}
		if p = p[n:]; f.Kind == frame.None {
			break
		}
	}
	for _, k := range []frame.Kind{frame.Open, frame.Accept, frame.EOS, frame.Ended} {
		s.Control(&o, &frame.Frame{Kind: k, Stream: 1, Grants: []frame.Grant{{}}})
	}
	s.Flush(&o)
	linger, over := over(s)
	if !over {
		t.Fatal("both directions have ended, and the connection has not")
	}
	return linger
}
