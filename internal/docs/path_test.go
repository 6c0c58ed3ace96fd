package docs

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerpc/sluice/kernel"
	"github.com/sluicerpc/sluice/kernel/kerneltest"
	"github.com/sluicerpc/sluice/pool"
)

// A path is one end of a connection whose bytes take a time to arrive, on a network without
// another limit.
type path struct {
	net.Conn
	delay   time.Duration
	in, out chan piece
	rest    []byte
	done    chan struct{}
	once    sync.Once
}

type piece struct {
	bytes []byte
	due   time.Time
}

// paths makes the two ends.
func paths(a, b net.Conn, delay time.Duration) (net.Conn, net.Conn) {
	there, back := make(chan piece, 1<<20), make(chan piece, 1<<20)
	done := make(chan struct{})
	x := &path{Conn: a, delay: delay, in: back, out: there, done: done}
	y := &path{Conn: b, delay: delay, in: there, out: back, done: done}
	return x, y
}

func (p *path) Write(b []byte) (int, error) {
	select {
	case <-p.done:
		return 0, net.ErrClosed
	case p.out <- piece{append([]byte(nil), b...), time.Now().Add(p.delay)}:
		return len(b), nil
	}
}

func (p *path) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		select {
		case <-p.done:
			return 0, io.EOF
		case next := <-p.in:
			time.Sleep(time.Until(next.due))
			p.rest = next.bytes
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *path) Close() error {
	p.once.Do(func() {
		defer func() { _ = recover() }() // the other end was first
		close(p.done)
	})
	return p.Conn.Close()
}

func (p *path) SetDeadline(time.Time) error      { return nil }
func (p *path) SetReadDeadline(time.Time) error  { return nil }
func (p *path) SetWriteDeadline(time.Time) error { return nil }

// A pathListener accepts the far ends.
type pathListener struct {
	*kerneltest.Listener
	delay time.Duration
	ends  chan net.Conn
}

func (l *pathListener) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	a, err := l.Listener.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, far := paths(a, a, l.delay)
	l.ends <- far
	return near, nil
}

func (l *pathListener) Accept() (net.Conn, error) {
	if _, err := l.Listener.Accept(); err != nil {
		return nil, err
	}
	return <-l.ends, nil
}

// rateOver returns the bytes a second that streams carry together on a path with a round
// trip, once they have carried as much as is then measured.
func rateOver(t *testing.T, rtt time.Duration, streams int, limits kernel.Limits) (rate float64) {
	synctest.Test(t, func(t *testing.T) {
		const total, size = 128 << 20, 64 << 10
		srv, err := kernel.NewServer(&kernel.ServerOptions{Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		got, half := 0, time.Time{}
		srv.Handle("bulk", func(ctx context.Context, s *kernel.Stream) error {
			for m, err := range s.All(ctx) {
				if err != nil {
					return err
				}
				mu.Lock()
				got += m.Len()
				if half.IsZero() && got >= total/2 {
					half = time.Now()
				}
				if got == total {
					rate = total / 2 / time.Since(half).Seconds()
				}
				mu.Unlock()
				m.Release()
			}
			return nil
		})
		ln := &pathListener{kerneltest.Listen(), rtt / 2, make(chan net.Conn, 1)}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(t.Context(), ln) })
		client, err := kernel.Dial(t.Context(), kerneltest.Target, &kernel.ClientOptions{Limits: limits, Dial: ln.dial})
		if err != nil {
			t.Fatal(err)
		}
		var senders sync.WaitGroup
		for range streams {
			s, err := client.Open(t.Context(), "bulk", nil)
			if err != nil {
				t.Fatal(err)
			}
			senders.Go(func() {
				for range total / size / streams {
					if err := s.Send(t.Context(), pool.New(size)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		senders.Wait()
		_ = client.Close()
		_ = srv.Close()
		wg.Wait()
		time.Sleep(2 * rtt) // what is under way arrives
	})
	return rate
}
