package attacks

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicerpc/sluice/frame"
	"github.com/sluicerpc/sluice/frame/native"
	"github.com/sluicerpc/sluice/frame/seastar"
	"github.com/sluicerpc/sluice/frame/strm"
	"github.com/sluicerpc/sluice/frame/triple"
	"github.com/sluicerpc/sluice/internal/testkit"
	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/pool"
)

// An attack is what an attacker's process does. It begins again with what the server takes
// from it, until its input ends.
type attack struct {
	run   func(a *attacker)
	short bool // also where not all attacks run
}

// attacks are by name. Those of many streams open as many as the server's defaults allow one
// client.
var attacks = map[string]attack{
	"nothing": {func(*attacker) { spin() }, false},

	"silent sockets": {silentSockets, false},
	"hellos":         {hellos, false},

	"opens":               {func(a *attacker) { a.opens(200, 1000, "stuck") }, true},
	"opens of echo":       {func(a *attacker) { a.opens(200, 1000, "echo") }, true},
	"opens of offers":     {func(a *attacker) { a.opens(200, 1000, "no such method") }, false},
	"opens with metadata": {func(a *attacker) { a.opensWithMetadata(60, 1000) }, false},
	"opens and resets":    {func(a *attacker) { a.opensAndResets(20) }, false},

	"senders":             {func(a *attacker) { a.opens(60, 1000, "sender") }, true},
	"senders to deaf":     {func(a *attacker) { a.deaf = true; a.opens(20, 1000, "sender") }, false},
	"small ones to deaf":  {func(a *attacker) { a.deaf = true; a.opens(20, 1000, "small") }, false},
	"large ones to deaf":  {func(a *attacker) { a.deaf = true; a.opens(20, 1000, "large") }, true},
	"brpc to deaf":        {func(a *attacker) { a.deaf, a.protocol = true, strm.Protocol{}; a.opens(60, 100, "sender") }, false},
	"Seastar to deaf":     {func(a *attacker) { a.deaf, a.protocol = true, &seastar.Protocol{}; a.opens(100, 8, "") }, false},
	"unread":              {func(a *attacker) { a.unread(60, 100, 10_000) }, true},
	"unread, empty":       {func(a *attacker) { a.unread(60, 100, 0) }, true},
	"unread, long":        {func(a *attacker) { a.unread(60, 100, 4<<20) }, false},
	"brpc calls":          {func(a *attacker) { a.brpcCalls(20, 40_000, 1) }, false},
	"brpc calls, long":    {func(a *attacker) { a.brpcCalls(20, 40_000, 1000) }, false},
	"unread, brpc":        {func(a *attacker) { a.protocol = strm.Protocol{}; a.unread(60, 20, 10_000) }, false},
	"unread, brpc, small": {func(a *attacker) { a.protocol = strm.Protocol{}; a.unread(60, 20, 1) }, false},
	"unread beside read":  {func(a *attacker) { a.unreadBesideRead(60) }, true},

	"gRPC opens":               {func(a *attacker) { a.protocol = triple.Protocol{}; a.opens(200, 1000, "stuck") }, false},
	"gRPC opens with metadata": {func(a *attacker) { a.protocol = triple.Protocol{}; a.opensWithMetadata(60, 1000) }, false},
	"gRPC opens and resets":    {func(a *attacker) { a.protocol = triple.Protocol{}; a.opensAndResets(20) }, false},
	"gRPC unread":              {func(a *attacker) { a.protocol = triple.Protocol{}; a.unread(60, 100, 10_000) }, false},
	"gRPC unread, empty":       {func(a *attacker) { a.protocol = triple.Protocol{}; a.unread(60, 100, 0) }, false},
	"gRPC senders":             {func(a *attacker) { a.protocol = triple.Protocol{}; a.opens(60, 1000, "sender") }, false},
	"gRPC senders to deaf":     {func(a *attacker) { a.deaf, a.protocol = true, triple.Protocol{}; a.opens(20, 1000, "sender") }, false},
}

// An attacker is a client in a process of its own.
type attacker struct {
	addr     string
	protocol frame.Protocol // nil is native
	deaf     bool           // reads its sockets no more once it has connected
	tls      bool
}

// spin uses up what CPU there is, and attacks nobody.
func spin() {
	for range runtime.NumCPU() {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
	untilEnd()
}

func silentSockets(a *attacker) {
	for range 300 {
		go func() {
			for {
				if nc, err := net.Dial("tcp", a.addr); err == nil {
					_, _ = nc.Read(make([]byte, 1))
					_ = nc.Close()
				}
			}
		}()
	}
	untilEnd()
}

// hellos asks for streams of connections that it can't know.
func hellos(a *attacker) {
	for range 200 {
		go func() {
			for {
				b := binary.LittleEndian.AppendUint32([]byte("SSTARRPC"), 16)
				b = binary.LittleEndian.AppendUint32(b, 3)
				b = binary.LittleEndian.AppendUint32(b, 8)
				b = binary.LittleEndian.AppendUint64(b, uint64(1+rand.IntN(2000))<<16)
				if nc, err := net.Dial("tcp", a.addr); err == nil {
					_, _ = nc.Write(b)
					_, _ = nc.Read(make([]byte, 1))
					_ = nc.Close()
				}
			}
		}()
	}
	untilEnd()
}

// client returns a client. Where the attacker is deaf it reads nothing once listen is set.
func (a *attacker) client() (c *kernel.Client, deafen *atomic.Bool) {
	deafen = &atomic.Bool{}
	o := &kernel.ClientOptions{
		Backoff: kernel.Backoff{First: 50 * time.Millisecond, Most: 50 * time.Millisecond},
		Limits:  kernel.Limits{OutQueue: 64 << 20, MaxMessage: 16 << 20},
	}
	target := a.addr
	if a.protocol != nil {
		o.Protocols = []frame.Protocol{a.protocol}
	} else {
		o.Protocols = []frame.Protocol{native.Protocol{}}
	}
	if a.tls {
		o.TLS = &tls.Config{InsecureSkipVerify: true} // of the server's certificate nobody needs to know
	}
	if a.deaf {
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			deafen.Store(false)
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
			return &deafConn{Conn: nc, deafen: deafen}, nil
		}
	}
	for {
		var err error
		if c, err = kernel.Dial(context.Background(), target, o); err == nil {
			return c, deafen
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A deafConn reads no more once deafen is set, until it is closed.
type deafConn struct {
	net.Conn
	deafen *atomic.Bool
	closed atomic.Bool
}

func (c *deafConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

func (c *deafConn) Read(p []byte) (int, error) {
	for c.deafen.Load() && !c.closed.Load() {
		time.Sleep(20 * time.Millisecond)
	}
	return c.Conn.Read(p)
}

// each runs f for each of n clients, again and again.
func (a *attacker) each(n int, f func(c *kernel.Client, deafen *atomic.Bool)) {
	for range n {
		go func() {
			c, deafen := a.client()
			for {
				f(c, deafen)
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
	untilEnd()
}

// opens keeps as many streams of a method open on each connection as it can, and uses none.
func (a *attacker) opens(conns, streams int, method string) {
	a.each(conns, func(c *kernel.Client, deafen *atomic.Bool) {
		ss := []*kernel.Stream{}
		for len(ss) < streams {
			ctx, cancel := context.WithTimeout(context.Background(), second)
			s, err := c.Open(ctx, method, &kernel.OpenOptions{Stream: kernel.StreamOptions{Context: context.Background()}})
			cancel()
			if err != nil {
				break
			}
			ss = append(ss, s)
			if a.deaf && len(ss) == streams/4 {
				deafen.Store(true)
			}
		}
		deafen.Store(a.deaf)
		for n := len(ss); n > len(ss)/2 && n > 0; time.Sleep(100 * time.Millisecond) { // until most are gone
			n = 0
			for _, s := range ss {
				if s.Err() == nil {
					n++
				}
			}
		}
	})
}

// brpcCalls makes so many calls, with requests of n bytes, on each connection at once, and again
// when all are answered or the connection is gone.
func (a *attacker) brpcCalls(conns, calls, n int) {
	burst := brpcBurst("stuck", calls, n)
	for range conns {
		go func() {
			for ; ; time.Sleep(50 * time.Millisecond) {
				nc, err := net.Dial("tcp", a.addr)
				if err != nil {
					continue
				}
				go func() { _, _ = nc.Write(burst) }()
				_ = nc.SetReadDeadline(time.Now().Add(20 * second))
				_, _ = io.Copy(io.Discard, nc)
				_ = nc.Close()
			}
		}()
	}
	untilEnd()
}

// brpcBurst is so many calls of a method, each with n bytes, in brpc's packets.
func brpcBurst(method string, calls, n int) (b []byte) {
	for i := range calls {
		meta := append([]byte{1<<3 | 2, byte(4 + len(method)), 1<<3 | 2, 0, 2<<3 | 2, byte(len(method))}, method...)
		meta = binary.AppendUvarint(append(meta, 4<<3), uint64(i+1)) // correlation_id
		b = binary.BigEndian.AppendUint32(append(b, "PRPC"...), uint32(len(meta)+n))
		b = binary.BigEndian.AppendUint32(b, uint32(len(meta)))
		b = append(append(b, meta...), make([]byte, n)...)
	}
	return b
}

func (a *attacker) opensWithMetadata(conns, streams int) {
	a.each(conns, func(c *kernel.Client, _ *atomic.Bool) {
		for range streams {
			ctx, cancel := context.WithTimeout(context.Background(), second)
			_, _ = c.Open(ctx, "stuck", &kernel.OpenOptions{
				Metadata: testkit.MetadataOf(15 << 10), Request: testkit.Sized(15<<10, 'r'), Stream: kernel.StreamOptions{Context: context.Background()}})
			cancel()
		}
	})
}

func (a *attacker) opensAndResets(conns int) {
	a.each(conns, func(c *kernel.Client, _ *atomic.Bool) {
		for range 1000 {
			ctx, cancel := context.WithCancel(context.Background())
			if s, err := c.Open(ctx, "stuck", nil); err == nil {
				_, _, _ = s.Accepted(ctx)
			}
			cancel()
		}
	})
}

// unread sends messages that nobody reads, as many as the server takes.
func (a *attacker) unread(conns, streams, size int) {
	a.each(conns, func(c *kernel.Client, _ *atomic.Bool) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*second)
		defer cancel()
		var all sync.WaitGroup
		for range streams {
			s, err := c.Open(ctx, "deaf", nil)
			if err != nil {
				break
			}
			all.Go(func() { send(ctx, s, size) })
		}
		all.Wait()
	})
}

// send sends on s until it fails.
func send(ctx context.Context, s *kernel.Stream, size int) {
	for {
		m := pool.MessageOf(make([]byte, size))
		if err := s.Send(ctx, m); err != nil {
			m.Release()
			return
		}
	}
}

// unreadBesideRead has a few small messages stay unread among many that are read.
func (a *attacker) unreadBesideRead(conns int) {
	a.each(conns, func(c *kernel.Client, _ *atomic.Bool) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*second)
		defer cancel()
		busy, err := c.Open(ctx, "echo", nil)
		if err != nil {
			return
		}
		go func() {
			for m, err := range busy.All(ctx) {
				m.Release()
				if err != nil {
					return
				}
			}
		}()
		var kept []*kernel.Stream
		for range 200 {
			if s, err := c.Open(ctx, "deaf", nil); err == nil {
				kept = append(kept, s)
			}
		}
		for i := 0; ctx.Err() == nil && busy.Err() == nil; i++ {
			_ = kept[i%len(kept)].TrySend(testkit.Sized(1, 'k'))
			for range 4 {
				m := testkit.Sized(4000, 'b')
				if busy.Send(ctx, m) != nil {
					m.Release()
				}
			}
		}
	})
}
