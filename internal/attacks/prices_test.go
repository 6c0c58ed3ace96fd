package attacks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
	"github.com/sluicerpc/sluice/status"
)

// A load is something that a client has a server hold.
type load struct {
	conns, streams int
	method         string
	protocol       frame.Protocol
	deaf, tls      bool
	least          float64                                     // of what is held, that is counted; 0: 0.85
	each           func(ctx context.Context, s *kernel.Stream) // what is done on each stream
	metadata       int
	brpcCalls      bool // by brpc's calls, not streams
}

// fill sends messages of n bytes, at most so many, while there is credit.
func fill(n, most int) func(context.Context, *kernel.Stream) {
	return func(ctx context.Context, s *kernel.Stream) {
		for left, refused := most, 0; left > 0 && refused < 3 && ctx.Err() == nil; {
			m := pool.MessageOf(make([]byte, n))
			err := s.TrySend(m)
			switch {
			case err == nil:
				left--
				continue
			case !errors.Is(err, kernel.ErrWouldBlock):
				refused = 3
			}
			m.Release()
			refused++
			time.Sleep(time.Millisecond)
		}
	}
}

// copies is fill by SendCopy.
func copies(n, most int) func(context.Context, *kernel.Stream) {
	return func(ctx context.Context, s *kernel.Stream) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond) // until there is no credit
		defer cancel()
		p := make([]byte, n)
		for range most {
			if s.SendCopy(ctx, p) != nil {
				return
			}
		}
	}
}

// accepted waits for the first message.
func accepted(ctx context.Context, s *kernel.Stream) {
	m, _ := s.Receive(ctx)
	m.Release()
}

// then does one after the other.
func then(fs ...func(context.Context, *kernel.Stream)) func(context.Context, *kernel.Stream) {
	return func(ctx context.Context, s *kernel.Stream) {
		for _, f := range fs {
			f(ctx, s)
		}
	}
}

func reset(_ context.Context, s *kernel.Stream) { s.Abort(status.Cancelled, "") }

// What the server counts is what it holds, for each thing that costs: a price that is not true
// any more fails here.
func TestPrices(t *testing.T) {
	if testkit.RaceEnabled || testing.Short() {
		t.Skip("the race detector takes memory of its own")
	}
	for name, l := range map[string]load{
		"connections":                 {conns: 1000},
		"connections, TLS":            {conns: 300, tls: true},
		"connections, Seastar":        {conns: 500, protocol: &seastar.Protocol{}},
		"streams":                     {conns: 10, streams: 1000, method: "open"},
		"streams, brpc":               {least: 0.75, conns: 10, streams: 1000, method: "open", protocol: strm.Protocol{}},
		"calls that wait, brpc":       {conns: 3, streams: 20_000, brpcCalls: true},
		"handlers that wait":          {conns: 10, streams: 1000, method: "stuck"},
		"handlers that receive":       {conns: 10, streams: 1000, method: "echo", each: then(fill(10, 1), accepted)},
		"handlers that receive, brpc": {conns: 10, streams: 1000, method: "echo", protocol: strm.Protocol{}, each: then(fill(10, 1), accepted)},
		"handlers that receive, gRPC": {conns: 10, streams: 1000, method: "echo", protocol: triple.Protocol{}, each: then(fill(10, 1), accepted)},
		// On a busy machine some handlers have made a message of 10,000 bytes that they have not sent yet.
		"handlers that send": {least: 0.7, conns: 10, streams: 1000, method: "sender"},
		"metadata":           {conns: 10, streams: 200, method: "stuck", metadata: 15 << 10},
		"unread, empty":      {conns: 10, streams: 100, method: "deaf", each: then(accepted, fill(0, 10_000))},
		"unread, 50 bytes":   {conns: 10, streams: 100, method: "deaf", each: then(accepted, fill(50, 10_000))},
		// A burst of a few messages can have a block to itself that has room for twice as many.
		"unread, 1,000 bytes":              {least: 0.65, conns: 10, streams: 100, method: "deaf", each: then(accepted, fill(1000, 1000))},
		"unread, 100,000 bytes":            {conns: 10, streams: 100, method: "deaf", each: then(accepted, fill(100_000, 1))},
		"unread, 1 byte, brpc":             {conns: 4, streams: 4, method: "deaf", protocol: strm.Protocol{}, each: then(accepted, fill(1, 100_000))},
		"unread, 120 bytes, in bundles":    {conns: 10, streams: 100, method: "lent", each: then(accepted, copies(120, 10_000))},
		"unwritten, 300 bytes, in bundles": {conns: 20, streams: 100, method: "copies", deaf: true},
		"in In's buffer":                   {conns: 10, streams: 20, method: "in", each: fill(100_000, 1)},
		"in In's buffer, 1,000 bytes":      {least: 0.65, conns: 10, streams: 100, method: "in", each: fill(1000, 16)},
		"unread of streams that are reset": {conns: 10, streams: 100, method: "kept", each: then(accepted, fill(0, 10_000), reset)},
		"unwritten, 10 bytes":              {conns: 20, streams: 100, method: "small", deaf: true, least: 0.35}, // what was written has been among them, and shares their memory
		"unwritten, 10,000 bytes":          {conns: 20, streams: 100, method: "sender", deaf: true},
		"unwritten, 1 MiB":                 {conns: 4, streams: 20, method: "large", deaf: true},
		"streams, gRPC":                    {conns: 10, streams: 1000, method: "open", protocol: triple.Protocol{}},
		"metadata, gRPC":                   {conns: 10, streams: 200, method: "stuck", metadata: 15 << 10, protocol: triple.Protocol{}},
		"unread, 100,000 bytes, gRPC":      {conns: 10, streams: 100, method: "deaf", protocol: triple.Protocol{}, each: then(accepted, fill(100_000, 1))},
		"unread, 100,000 bytes, TLS":       {conns: 10, streams: 100, method: "deaf", tls: true, each: then(accepted, fill(100_000, 1))},
		"unwritten, gRPC":                  {conns: 20, streams: 50, method: "sender", deaf: true, protocol: triple.Protocol{}},
		"unwritten, TLS":                   {conns: 20, streams: 50, method: "sender", deaf: true, tls: true},
		"unwritten, brpc":                  {conns: 20, streams: 20, method: "sender", deaf: true, protocol: strm.Protocol{}},
	} {
		t.Run(name, func(t *testing.T) {
			env := "GOGC=100"
			if l.tls {
				env = withTLS + "=yes"
			}
			srv := start(t, "server", env)
			a := &attacker{addr: srv.line(t), protocol: l.protocol, deaf: l.deaf, tls: l.tls}
			ctx, cancel := context.WithTimeout(t.Context(), 60*second)
			defer cancel()
			l.apply(ctx, t, a, 1) // what is made once
			before, realBefore := srv.held(t)
			l.apply(ctx, t, a, l.conns)
			after, real := srv.held(t)
			account, real := after-before, real-realBefore
			n := max(l.streams, 1) * l.conns
			t.Logf("%-34s %7d each, %7d each are counted: %.2f", name, real/n, account/n, float64(account)/float64(real))
			if real < 1<<20 {
				t.Fatalf("%d bytes are held: too few for the test", real)
			}
			if f := float64(account) / float64(real); f < cmp.Or(l.least, 0.85) || f > 2 {
				t.Errorf("%d bytes are counted, %d are held", account, real)
			}
		})
	}
}

// apply has the server hold what l says, on so many connections.
func (l *load) apply(ctx context.Context, t *testing.T, a *attacker, conns int) {
	for range conns {
		if l.brpcCalls {
			nc, err := net.Dial("tcp", a.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = nc.Close() })
			if _, err := nc.Write(brpcBurst("stuck", l.streams, 1)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		c, deafen := a.client()
		t.Cleanup(func() { _ = c.Close() })
		if l.streams == 0 {
			if _, err := c.Conn(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		l.open(ctx, t, c, deafen)
	}
	time.Sleep(300 * time.Millisecond) // until the server has it
}

func (l *load) open(ctx context.Context, t *testing.T, c *kernel.Client, deafen *atomic.Bool) {
	for range l.streams {
		o := &kernel.OpenOptions{}
		if l.metadata > 0 {
			o.Metadata = testkit.MetadataOf(l.metadata)
		}
		s, err := c.Open(ctx, l.method, o)
		if err != nil {
			t.Fatal(err)
		}
		if !l.deaf {
			deafen.Store(false)
		}
		if l.each != nil {
			l.each(ctx, s)
		}
		if err := s.Err(); err != nil && !errors.Is(err, &status.StreamError{Code: status.Cancelled}) {
			t.Fatal(err)
		}
	}
	deafen.Store(l.deaf)
}

// held has a server say what it counts and what it holds, in bytes.
func (p *process) held(t *testing.T) (account, real int) {
	if _, err := io.WriteString(p.in, "held\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(p.line(t), &account, &real); err != nil {
		t.Fatal(err)
	}
	return account, real
}
