package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/status"
)

// A flipper is a network path that changes one bit of what passes one way.
type flipper struct {
	up  bool // towards the server
	bit int  // of all that passes; negative: none

	mu    sync.Mutex
	sent  [2][]byte // down and up, as it was sent
	flips int
}

func way(up bool) int {
	if up {
		return 1
	}
	return 0
}

// pass notes the bytes of p, one way, and changes the bit if it is one of theirs.
func (f *flipper) pass(p []byte, up bool) (through []byte, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sent := &f.sent[way(up)]
	at := f.bit/8 - len(*sent)
	*sent = append(*sent, p...)
	if f.bit >= 0 && up == f.up && at >= 0 && at < len(p) {
		p[at] ^= 1 << (f.bit % 8)
		f.flips++
	}
	return p, false
}

// flipped runs a session over a path that changes a bit. It returns how it ended for
// the client, nil if in order, and what is wrong with that.
func flipped(f *flipper, plain bool) (end, wrong error) {
	log := &journal{}
	srv, err := serveTalk(&kernel.ServerOptions{NoChecksum: plain, Logger: log.Logger()})
	if err != nil {
		return nil, err
	}
	defer srv.stop()
	start := time.Now()
	client, err := kernel.Dial(context.Background(), kerneltest.Target, quietClient(&kernel.ClientOptions{Dial: pathTo(srv.ln, f.pass)}))
	if took := time.Since(start); took > time.Second {
		return nil, fmt.Errorf("to connect took %v", took)
	}
	if err != nil {
		return err, f.explained(err, "")
	}
	defer client.Close()
	a, end := session(client)
	if took := time.Since(start); took > time.Second {
		return end, fmt.Errorf("it took %v", took)
	}
	if err := srv.check(a); err != nil {
		return end, err
	}
	return end, f.explained(end, log.String())
}

// session is the client's side: its account of the stream, and how the connection
// ended if that did not end in order.
func session(client *kernel.Client) (a account, end error) {
	ctx := context.Background()
	k, err := client.Conn(ctx)
	if err != nil { // it has ended already
		a.end = err
		return a, err
	}
	s, err := k.Open(ctx, "talk", nil)
	if err != nil {
		a.end = err
	} else if a = exchange(ctx, s); errors.Is(a.end, io.EOF) {
		return a, nil
	}
	<-k.Done()
	return a, k.Err()
}

// startLen is how long the magic and the record of the first frame are.
func startLen(b []byte) int {
	at := len(native.Magic)
	return at + 8 + int(b[at]) + int(b[at+1])<<8 + int(b[at+2])<<16
}

// explained returns an error if a bit was changed and neither side says so: the
// client by end, the server by its log. A flipped bit of the magic has no text.
func (f *flipper) explained(end error, log string) error {
	if f.bit < 8*len(native.Magic) {
		return nil
	}
	for _, c := range []status.Code{status.Checksum, status.Protocol, status.Version, status.FrameSize} {
		var ce *status.ConnError
		if errors.Is(end, &status.ProtocolError{Code: c}) || errors.As(end, &ce) && ce.Code == c || strings.Contains(log, ": "+c.String()+": ") {
			return nil
		}
	}
	return fmt.Errorf("neither side says why; the server's log: %s", log)
}

// Every bit of both HELLOs, with and without records behind them, and every bit of a
// session's first kilobyte with records, is changed on its way, one at a time: the
// connection ends and says why, within a second, and neither side takes what came for an end
// in order or for what was sent.
func TestEveryFlippedBitOfASessionEndsIt(t *testing.T) {
	stride := 1
	switch {
	case testing.Short():
		stride = 61
	case raceEnabled:
		stride = 29
	}
	for _, plain := range []bool{false, true} {
		intact := flipper{bit: -1}
		synctest.Test(t, func(t *testing.T) {
			if end, err := flipped(&intact, plain); end != nil || err != nil {
				t.Fatalf("with nothing changed: %v, %v", end, err)
			}
		})
		for _, up := range []bool{false, true} {
			most := 1 << 10
			if plain {
				most = startLen(intact.sent[way(up)])
			}
			if n := len(intact.sent[way(up)]); n < most {
				t.Fatalf("a session of %d bytes, up=%t", n, up)
			}
			for bit := way(up); bit < 8*most; bit += stride {
				synctest.Test(t, func(t *testing.T) {
					f := flipper{up: up, bit: bit}
					if end, err := flipped(&f, plain); err != nil || end == nil || f.flips != 1 {
						t.Fatalf("byte %d, bit %d, up=%t, plain=%t: ended with %v; %v", bit/8, bit%8, up, plain, end, err)
					}
				})
			}
		}
	}
}
